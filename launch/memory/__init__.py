"""What fits a memory limit: which limit is it, and which micro-batch x accumulation stays below it?"""
