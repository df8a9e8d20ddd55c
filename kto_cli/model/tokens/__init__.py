"""Rows as token ids, stored on disk and read a row at a time.

encoder.py         prompts and completions -> token ids, truncated to fit
text_tokens.py     texts -> token ids; names of special tokens as plain text
encoding_report.py   rows shortened, truncated or dropped
template_variables.py   variables that a chat template reads
chat_template.py   chats -> text, by the tokenizer's chat template
answer_text.py     what the model writes behind a generation prompt for a given answer
control_text.py   texts at the end of prompts that say the label (conditional SFT)
validation_rows.py   validation rows as the policy, its loss and the reference read them
pair_ids.py         pair ids that too many rows hold
row_keys.py        rows -> ids, labels and hashes
partners.py        the row that lends each row its mismatched completion
build_store.py     Parquet file -> token store, in batches, with mismatched pairs
lexicographic.py   lexicographic order of stored texts
store.py           token store: tokenized rows on disk
store_files.py     the files of a token store: written, sealed, checked
cached.py          token store of a dataset: from the cache, else tokenized
fit.py             rows that do not fit a model's context
"""
