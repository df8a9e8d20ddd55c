"""Benchmarks through lm-eval (the paper's Table 2): chosen, run, read, compared.

tasks.py     the benchmarks of one evaluation
plan.py      which tasks, with the paper's shots
loading.py   tasks and their documents
run.py       tasks run on a loaded model, each result kept
results.py   one headline number a benchmark
compare.py   the checkpoint against its reference, paired
quiet.py     lm-eval's messages held back, random state restored
"""
