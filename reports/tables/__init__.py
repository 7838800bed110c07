"""What did each trial measure? Tables of a run's trials, and beside them the figures that sources published.

summary.py makes one row of a trial's launches, scaling.py adds the efficiency of several processes, figures.py says
which figures a table has, and table.py puts rows that may stand together into a Sheet and prints it. export.py writes
sheets in other formats. to_target.py says what a target accuracy took, over seeds, and prices.py what that cost.
published.py judges accuracies against a source's, and published_table.py words that for pages.
"""
