"""Feedback formats: one module each, all with the results of records.py.

source.py               a format: its files, options and functions
records.py              results of a record: pairs, labelled, scored or ranked answers, rejects
listing.py              raw files of a folder, and their official split
saved_dataset.py        folders that datasets.save_to_disk wrote
fields.py               fields of a record, with their types checked
messages.py             one chat message in the spellings that people have: role, text, and what else it carries
message_names.py        names of roles and fields, and what they say: role, id, rating
message_parts.py        content given as a list of parts
tool_calls.py           tools and calls of them, in one form
chats.py                chats as they happen, brought into turns: greetings, neighbours of one role, the rated answer
rows.py                 rows of a table as pairs or labelled answers
counts.py               counts of what parsing decides, for notes on the screen
column_names.py         well-known names of columns, and names that mean bad
labels.py               labels of rows: where the value of a cell becomes a label
cell_text.py            chats and other structures written as text in a cell
hh_rlhf.py              Anthropic hh-rlhf
shp.py                  Stanford Human Preferences
oasst.py                OpenAssistant: ranked replies
oasst_trees.py          OpenAssistant: message trees in their three file formats
ultrafeedback.py        UltraFeedback, scored or binarized
alpaca_eval.py          AlpacaEval annotations
halos.py                feedback files of the KTO authors' code (HALOs)
trl.py                  tables and Hub datasets in TRL's columns
llama_factory.py        LLaMA-Factory: sharegpt and alpaca
llama_factory_info.py   LLaMA-Factory: dataset_info.json
"""
