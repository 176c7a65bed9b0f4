"""Whole data sets: known ones fetched by name, any of them converted to another format."""
