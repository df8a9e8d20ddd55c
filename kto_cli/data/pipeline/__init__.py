"""From records to a data folder: parse, label, split, sample, write.

parse.py        raw files to rows, in one process or several
to_rows.py      a block of records to rows: texts in Arrow, numbers in arrays
row_spool.py    a temporary file of texts, numbers in memory, until all rows are read
outcome.py      the outcome of each row: train, validation, or dropped and why
assign.py       an outcome for every row: labels, fixes, split, sample
label.py        labels for rows that have scores or ranks
thresholds.py   the paper's three ways from scores to labels
rankings.py     ranked lists as pairs
split.py        which rows are for validation
sample.py       fewer rows: class balance, limits
write.py        the second pass: each row to its file
export.py       a dataset in the files of TRL, LLaMA-Factory and HALOs
summary.py      counts of a run, and how they are shown
"""
