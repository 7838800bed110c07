"""What differs from machine to machine, or from version to version, at equal settings?

machines.py puts the launches of each machine on one line of their trial, and lists what stands on no line beside
another. side_by_side.py reads the runs; reference.py sets beside them what reference.csv holds: throughputs that others
published. measures.py says what a line measures, sheets.py makes tables of it, charts.py draws it, page.py writes it
for a browser, forms.py for other programs.
"""
