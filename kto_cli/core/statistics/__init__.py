"""Statistics of rows: estimates, their intervals, and the verdict in words.

metrics.py       metrics of a step and of the validation rows
auc.py           AUC: plain, weighted, adjusted for length, between rows of similar length
intervals.py     bootstrap over prompts; Wilson's interval
breakdown.py     rows one by one, by class, by source
calibration.py   rewards as probabilities
comparison.py    two checkpoints on the same rows, paired
win_rates.py     win rates of judged answers: ties, position bias, length control
verdict.py       the verdict on a run and warnings, in words
"""
