"""One trial on several machines: how do they meet, start together, and notice that one is lost?

Each machine runs the same command. `address` finds machine 0, `join` brings the machines together and has machine 0
check with `compatibility` that they run the same, `store` is their connection from then on, and over that `coordinator`
starts and ends each trial on all of them.
"""
