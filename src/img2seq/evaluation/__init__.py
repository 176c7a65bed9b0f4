"""The verb `evaluate`: caption a data set, score the captions, write the page."""
