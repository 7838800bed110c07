"""Since when is a metric another, over many runs?

run_points.py makes a point of each run and puts the runs of one trial on one machine into a series; change_points.py
finds where a series changes; page.py draws the series for a browser.
"""
