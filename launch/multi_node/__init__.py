"""One trial on several machines: how do they meet, start together, and notice that one is lost?"""
