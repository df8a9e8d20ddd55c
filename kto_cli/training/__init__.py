"""Rows and a model become an aligned model.

settings.py    what the config leaves open: resolved, filled in, reported
hints.py       what is known of the start model and bears on the loss
record.py      what kto_config.json records, and compares when a run is resumed
loss_flags.py  the loss of --loss; flags that mean nothing with it
custom.py      a loss of the user's, announced and tried
units.py       rows that a loss learns from: all, desirable ones, pairs
setup.py       a run made ready: reference log-probs, adapters, optimizer, processes
optimizer.py   the optimizer of --optimizer
step.py        one optimizer step: context passes, gradient pass, update
offline_ppo_step.py  the same of offline PPO, a loss of single tokens
humanline_step.py  the same with log-ratios of single tokens within bounds
planned.py     rows of each step of a run
synced_reference.py  a reference that becomes the policy every N steps
loop.py        which rows, which learning rate, what is recorded, when to save
checks.py      a step's numbers are finite; policy and reference agree at the start
after.py       --after: what the last run gives, and how the new model compares with it
best_step.py   the step with the lowest validation loss, kept until the run ends
memory.py      the token budget found by trying; out-of-memory recovery
live.py        curves in the terminal during training
trackers.py    --track: trackio, TensorBoard, wandb
run/           the run directory
dry_run/       what a run will need
"""
