"""A lean run: what captioning and serving need, and nothing of training."""
