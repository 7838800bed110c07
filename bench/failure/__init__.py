"""Why did a process of a trial end, and what does its row say about that?"""
