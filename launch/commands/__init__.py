"""The commands of `python -m launch`."""
