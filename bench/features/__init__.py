"""How does a frozen backbone compute each image's features once, and where are they kept?

backbone.py runs it and counts its images, store.py keeps what it gives, pipeline.py makes micro-batches of that.
"""
