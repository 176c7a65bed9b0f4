"""Formats on disk: one file a format, each read into the same records."""
