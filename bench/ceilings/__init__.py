"""What does this machine give at most? A trial is held against it, and one device against another.

`python -m launch ceilings` starts the ranks, which run __main__.py. measurement.py says what is measured, in which
order and sizes: compute.py (matrix products, convolutions), transfers.py (copies, all-reduces), inputs.py (the suite's
input pipelines), each timed by repetitions.py. comparison.py names the slow one of several devices.
"""
