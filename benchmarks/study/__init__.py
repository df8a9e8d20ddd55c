"""The study: what `kto train` does at settings of interest, cell by cell, on data and a model that the caller names.

__main__  the command line
cells     a cell is one `kto train`, and `kto eval` where asked: run several at a time, resumable by key, as JSON lines
tables    which cells answer which question
page      docs/study.md: its tables, computed from results.jsonl
paper     the authors' judged runs, from paper.jsonl
"""
