"""Captions from a trained model: one cache, one search."""
