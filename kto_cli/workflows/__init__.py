"""One module per command, step by step: a config and a screen in, a result out.

binarize.py       kto binarize
scrub_finders.py  what its --scrub-model names
list_sources.py   kto binarize --list
api.py            the public functions, which the command line calls
precompute.py     kto precompute
train.py          kto train
dry_run.py        kto train --dry-run
device_memory.py  kto train --dry-run --device-memory
evaluate.py       kto eval CHECKPOINT; kto eval --report-only
compare.py        kto eval A B C
export.py         kto export
sample.py         kto sample
label.py          kto label
loop.py           kto loop
loop_steps.py     the commands of its rounds
loop_record.py    its loop.json
loop_table.py     its table over the rounds
outcome.py        kto outcome
outcome_tables.py  its tables and sentences
demo.py           kto demo
theory.py         kto theory
theory_loss.py    kto theory --loss
theory_figure.py  its picture, Figure 2 of the paper
"""
