"""Statistics of rows: estimates, their intervals, and the verdict in words.

scores.py        log-ratios of a set of rows
metrics.py       metrics of a step and of the validation rows
estimates.py     estimates of many resamples at once, and the interval of each
auc.py           AUC: plain, weighted, adjusted for length, between rows of similar length
shares.py        score intervals of shares and AUCs, Student's t, without torch
clustered.py     shares of rows in clusters, and their differences, without torch
outcome.py       shares of desirable answers by version of a log, without torch
intervals.py     bootstrap over prompts, Wilson's interval
kappa.py         Cohen's kappa of two people, without torch
permutation.py   permutation test of an AUC
robust.py        means without outliers
equal_length.py  margin between answers of equal length
breakdown.py     rows one by one, by class, by source
calibration.py   rewards as probabilities
comparison.py    two checkpoints on the same rows, paired
judge_errors.py  win rate corrected for the errors of a judge, without torch
win_rates.py     win rates of judged answers: ties, position bias, length control
verdict.py       the verdict on a run, in words
served.py        whether a server serves what was trained
curves.py        warnings, and signs of overfitting
"""
