"""Benchmarks through lm-eval (the paper's Table 2): which, run, read, compared. Nothing here is imported unasked."""
