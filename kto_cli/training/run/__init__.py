"""The run directory: an interface, written so that a kill at any instant loses at most unfinished steps.

run_dir.py       what lies where; metrics.jsonl; the finished model
metrics_file.py  a line per step, each with a checksum
step_folders.py  folders of single steps: complete and sealed, or not there
checkpoints.py   saving and resuming on any number of processes
model_folder.py  a model folder, written
shards.py        a checkpoint in slices, one a process
model_card.py    README.md of a finished run
"""
