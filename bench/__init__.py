"""One trial: what is trained, how it is measured, what is recorded."""
