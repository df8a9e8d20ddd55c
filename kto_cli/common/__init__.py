"""Settings of each command, errors, files, cache and terminal; imports nothing of kto and nothing heavy.

errors.py            exceptions that a user can act on, each with its exit status
read.py              the door for reading files: JSON, YAML, Parquet, tensors; every failure in one line
files.py             atomic writes of files and folders, checksums; the built-in sample
row_file.py          files of rows that are appended to, and gone on with after a kill
owner.py             one owner of a folder at a time
seals.py             JSON objects that carry their own checksum
cache.py             the cache folder and its append-only files
template_kwargs.py   arguments of a chat template: read, checked, spelled
model_config.py      settings shared by `kto precompute`, `kto train` and `kto eval`
train_config.py      settings of `kto train`
config_file.py       settings from a config file or a run's kto_config.json
binarize_config.py   settings of `kto binarize`
eval_config.py       settings of `kto eval`
export_config.py     settings of `kto export`
sample_config.py     settings of `kto sample`
label_config.py      settings of `kto label`
loop_config.py       settings of `kto loop`
outcome_config.py    settings of `kto outcome`
install.py           pip commands for optional packages
secrets.py           API keys removed from text, however they are encoded
screen.py            the only module that prints: results to stdout, progress and messages to stderr
phase.py             where a long phase is, and what a stop keeps
column_widths.py     widths of a table's columns on a terminal
tables.py            the line of a step and the table of metrics
words.py             words for the screen: numbers with their nouns
text_chart.py        one chart as lines of text
chart_panels.py      the charts of metrics.jsonl, in the terminal and in the report
"""
