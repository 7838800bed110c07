"""Which of two commits is slower? Their launches take turns on this machine, block of steps by block.

request.py     the words of the command line -> GateRequest
worktrees.py   a checkout of each commit, and whether it knows how to take turns
sides.py       the processes of each side: started together, ended together
referee.py     grants the turns
looks.py       after how many pairs the gate may decide, and at which level
measure.py     pair after pair until a look decides
commits.py     two commits of this checkout: trials, and the verdict of reports compare

And which commit of a history was it?

suspects.py    git bisect chooses the commits to be tried
counts.py      a short run of one commit, whose exact counts decide
times.py       where they do not, its times against those of the good commit
decisions.py   the log, from which a bisect goes on
bisect.py      commit after commit until one is left
"""
