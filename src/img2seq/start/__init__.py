"""`img2seq init`: from photographs and captions to a configuration that trains as it is."""
