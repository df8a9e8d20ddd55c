"""Any feedback as labelled rows; no torch.

texts.py            prompts and completions in memory: texts, or chats with tools and reasoning
reasoning.py        reasoning within the text of an answer
arrow_chats.py      chats as Arrow columns
dataset.py          the data folder, an interface: its files, and reading them
dataset_folder.py   folders of datasets: found, and checked before one is written
dataset_writer.py   the data folder, written atomically
registry.py         the named sources
select.py           sources on the command line, resolved to raw files and formats
hub.py              downloads from the Hugging Face Hub
columns.py          numbers of all rows in memory; their texts are on disk
replay.py           new feedback after an earlier run: its split kept, a share of its rows again
seeded_order.py     a random order that depends on each row's content and the seed alone
readers/            files as records: JSONL, JSON, CSV, Parquet
formats/            one module per feedback format
products/           feedback as products export it: one module each
log/                a product's own log: columns and rules
audit/              the doctor: what is wrong with feedback
pipeline/           from records to a data folder, step by step
"""
