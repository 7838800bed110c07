"""Many trials: the commands that start them, one process group each."""
