"""What a checkpoint learned, how it answers, whether anything broke.

session.py      one evaluation: the checkpoint, its reference, where results go
checkpoint.py   the checkpoint that is evaluated and the run it belongs to
weights.py      dtype of the models that answer
prompts.py      the validation prompts that models answer
validation.py   results on validation rows: metrics.json, rows.parquet
files.py        the files of an eval folder
tables.py       results on the screen
answers/        prompts answered by models
judge/          which of two answers is better
benchmarks/     lm-eval
server/         an OpenAI-compatible server over HTTP
export/         a checkpoint exported to be served; what is served compared with it
report/         report.html
labelling/      people label answers on a page
"""
