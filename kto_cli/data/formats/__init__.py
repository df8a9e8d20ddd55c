"""Feedback formats: one module each, all giving the record types of records.py.

source.py               what a format is
records.py              the record types: pairs, outputs, scores, rankings, rejects
listing.py             the raw files of a folder, and their official split
fields.py               fields of a record, with their types checked
rows.py                 a row of a table as a pair or an output
labels.py               values that are labels: true / false, 1 / 0
hh_rlhf.py              Anthropic hh-rlhf
shp.py                  Stanford Human Preferences
oasst.py                OpenAssistant: ranked replies
oasst_trees.py          OpenAssistant: message trees in their three written forms
ultrafeedback.py        UltraFeedback, scored or binarized
alpaca_eval.py          AlpacaEval annotations
halos.py                feedback files of the KTO authors' code
trl.py                  tables and Hub datasets in TRL's columns
llama_factory.py        LLaMA-Factory: sharegpt and alpaca
llama_factory_info.py   LLaMA-Factory's dataset_info.json
"""
