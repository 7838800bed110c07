"""Which of two commits is slower? Their launches take turns on this machine, block of steps by block.

request.py     the words of the command line -> GateRequest
out_folder.py  which folder its launches go to
worktrees.py   a checkout of each commit, and whether it knows how to take turns
sides.py       the processes of each side: started together, ended together
referee.py     grants the turns
looks.py       after how many pairs the gate may decide, and at which level
measure.py     pair after pair until a look decides
commits.py     two commits of this checkout: trials, and the verdict of reports compare

Two commits of a project of the user's own (--pytest):

project_table.py   the options in its pyproject.toml
pytest_commits.py  which tests both have, and their pairs
pytest_project.py  a checkout of one, and how pytest is started in it
pytest_side.py     its launches, and which of its tests failed
"""
