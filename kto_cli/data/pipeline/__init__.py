"""From records to a data folder: parse, label, split, sample, write.

parse.py         raw files to parsed rows, in one process or several
to_rows.py       a block of records to parsed rows: texts in Arrow, numbers in arrays
parsed_row.py    a row as parsed, and the numbers of parsed rows: labels, scores, hashes, findings
row_spool.py     buffer of rows: texts in a temporary file, numbers in memory, until all rows are read
outcome.py       outcome of each row: train, validation, or dropped and why
assign.py        outcomes for all rows: labels, fixes, split, sample
label.py         labels for rows that have scores
label_values.py  values of label columns with their counts, and rules for them
thresholds.py    labels from scores, in the paper's three ways
rankings.py      pairs from ranked lists
scrub_rows.py    rows and rejects without personal data
pair_rows.py     pairs made of single rows of one prompt
openings.py      openings that many conversations share
split.py         the validation split
split_notes.py   its notes, warnings and reasons
kept_split.py    sides of an earlier dataset, which stay
sample.py        samples of the training rows: class balance, source weights, limits
write.py         second pass: each row to its file
export.py        a dataset in the file formats of TRL, LLaMA-Factory and HALOs
export_pairs.py  pairs of a dataset as OpenAI's preference file
logged_answers.py   answers of a log for kto outcome, unrated ones too
summary.py       counts of a run, and its summary on the screen
"""
