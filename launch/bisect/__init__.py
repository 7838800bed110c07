"""Which commit of a history changed a count, or made trials slower, larger or less accurate?

suspects.py    git bisect chooses the commits to be tried
counts.py      a short run of one commit, whose exact counts decide
times.py       where they do not, its times against those of the good commit (launch.gate)
decisions.py   the log, from which a bisect goes on
search.py      commit after commit until one is left
"""
