"""report.html: one page, built only from the files of a run and its evaluation.

evidence.py         reads the files
summary.py          the three questions and their answers
page.py             the page (report.html.j2, report.css)
numbers.py          sections of metrics.json as tables
curves.py           training curves
figures.py          rewards by class, shares with intervals
charts.py           matplotlib drawings as inline SVG
interval_chart.py   numbers with their intervals on one scale
saturation.py       saturated rows, labels to check first
differences.py      words that two texts do not share
generations.py      statistics of answers
win_rate.py         the judge's win rate
benchmarks.py       benchmarks beside the reference's
comparisons.py      this checkpoint beside others
"""
