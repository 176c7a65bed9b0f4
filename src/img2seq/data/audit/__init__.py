"""`img2seq data check`: look at a data set before a model does."""
