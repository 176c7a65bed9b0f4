"""The model: an image encoder, and a causal decoder that attends to what it sees. Reads no files but weights."""
