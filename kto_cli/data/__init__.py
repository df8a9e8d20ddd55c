"""Any feedback becomes labelled rows; no torch.

dataset.py          the data folder, an interface: its files, and reading them
dataset_writer.py   the data folder, written whole or not at all
registry.py         the formats that have a name
select.py           from the command line to raw files and their format
hub.py              datasets of the Hugging Face Hub
columns.py          the numbers of each row in memory while its text waits on disk
seeded_order.py     a random order that depends on each row's content and the seed alone
readers/            files as records: JSONL, JSON, CSV, Parquet
formats/            one module per feedback format
log/                a product's own log: columns and rules
audit/              the doctor: what is wrong with feedback
pipeline/           from records to a data folder, step by step
"""
