"""Settings of each command, errors, files, cache and terminal; imports nothing of kto and nothing heavy.

errors.py            exceptions that a user can act on, each with its exit status
files.py             atomic writes, checksums, locks, JSON; the built-in sample
cache.py             the cache folder and its append-only files
model_config.py      settings shared by `kto precompute`, `kto train` and `kto eval`
train_config.py      settings of `kto train`; config files
binarize_config.py   settings of `kto binarize`
eval_config.py       settings of `kto eval`
screen.py            the only module that prints: results to stdout, progress and messages to stderr
tables.py            the line of a step and the table of metrics
words.py             words for the screen: numbers with their nouns
text_chart.py        one chart as lines of text
chart_panels.py      the charts of metrics.jsonl, in the terminal and in the report
"""
