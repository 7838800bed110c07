"""Many trials: which ones, in which order, into which run folder?"""
