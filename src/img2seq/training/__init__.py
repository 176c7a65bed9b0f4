"""Train a model: the loop, the optimiser and its schedule, checkpoints, and what a run writes down."""
