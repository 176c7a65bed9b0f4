"""From any format of captions to one of five: one file a target."""
