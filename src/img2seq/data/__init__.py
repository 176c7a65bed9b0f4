"""From folders and tables to batches: annotations, images, tokens, split, cache, order, batch."""
