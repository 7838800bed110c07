"""The trials of a run as tables, and beside the figures that were published."""
