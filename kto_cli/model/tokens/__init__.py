"""Rows become token ids, stored on disk and read a row at a time.

encoder.py       prompts and completions -> token ids: chat template, truncation
build_store.py   a Parquet file -> a token store, in batches, with mismatched pairs
store.py         tokenized rows on disk
store_files.py   the files of a token store: written, sealed, checked
cached.py        the token store of a dataset: from the cache, else made
fit.py           rows that will not fit a model's context
"""
