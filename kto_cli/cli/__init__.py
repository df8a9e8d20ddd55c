"""The `kto` command: flags, help and exit status; imports nothing heavy.

app.py          the command itself, and its commands in the order of use
shared.py       what the commands share: exit status, flags of several commands
log_flags.py    flags for columns and rules of a log
binarize.py     flags of kto binarize
precompute.py   flags of kto precompute
train.py        flags of kto train
loss_flags.py   its flags of the loss
evaluate.py     flags of kto eval
export.py       flags of kto export
answer_flags.py  flags of answers and their judge, of kto eval and kto sample
sample.py       flags of kto sample
label.py        flags of kto label
loop.py         flags of kto loop
outcome.py      flags of kto outcome
demo.py         flags of kto demo
theory.py       flags of kto theory
launch.py       several processes on a machine without a GPU
"""
