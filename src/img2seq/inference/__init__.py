"""From pictures to captions: the only way there is."""
