"""The doctor: contradictions, duplicates, refusals, damaged text, length bias and more.

checks.py            findings about rows of all sources together
dataset_checks.py    findings about the rows as a whole: length bias, balance
text_checks.py       findings in one row's own text: encoding, template left-overs, loops
encoding.py          text decoded with the wrong encoding, restored
refusals.py          answers that only refuse
refusal_languages.py   the same in other languages than English
near_duplicates.py   clusters of prompts that are nearly the same
minhash.py           MinHash sketches of prompts
findings.py          one finding; findings as JSON and as bits per row
"""
