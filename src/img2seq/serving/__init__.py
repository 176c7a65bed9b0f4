"""A server around trained runs. Nothing of a model runs on the event loop: docs/architecture.md, Serving."""
