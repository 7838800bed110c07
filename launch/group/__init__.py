"""One trial's process group: how is it started, watched, and ended, whatever happens to it?"""
