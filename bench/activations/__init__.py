"""What do the channels of a trained model respond to?

`python -m reports activations` starts `python -m bench.activations` (`__main__`). It runs `channels`, which takes the
outputs of layers for an image and finds dead channels; `grid` draws them.
"""
