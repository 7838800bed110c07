"""Which images does a trial train on, and how do they reach the device?"""
