"""What a run folder and a checkpoint hold, read and written in one place."""
