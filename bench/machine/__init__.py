"""The machine: which CPU, GPUs and versions are here, how torch is set up on them, and what limits memory?"""
