"""`python -m bench.activations`: what do the channels of a trained model respond to?"""
