"""What a run will need: steps, tokens, memory, disk and time, known before it starts.

estimate.py   pure functions of sizes
shapes.py     whether a run fits a card, predicted from the model's sizes alone
workload.py   the tokens a run will compute, from the lengths of its rows
probe.py      a few real steps at learning rate 0: time, memory, noise
"""
