"""The GPU check: what only a GPU can show, in one command and eight minutes (README.md).

__main__.py       arguments: everything, or one group
driver.py         groups in processes of their own, one JSON line a check, the table
checks.py         a check: what it found, or the error it ended with
models.py         random models, rows, and a step as `kto train` takes it
timing.py         seconds of a call, measured on the device
facts.py          versions, ceilings, which attention kernel torch takes, and what a cuDNN plan costs
equality.py       every way of computing a step, against one row at a time in float64
losses.py         a step of every loss, against one row at a time in float64
memory.py         micro-batch sizes, and steps that run out of memory
determinism.py    whether equal steps give equal bits
command_line.py   kto as typed: train, kill, resume, eval
draws.py          the same draws as on a CPU, their cost, and the precision of the head
speed.py          1B: seconds a step, tokens a second, share of the peak, memory
kernels.py        one step under torch's profiler
versus_trl.py     kto against TRL
lora.py           8B with adapters
generation.py     tokens a second of the engines of kto eval
"""
