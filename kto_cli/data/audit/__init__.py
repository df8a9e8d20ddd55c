"""The doctor: contradictions, duplicates, refusals, damaged text, length bias and more.

checks.py            findings about rows of all sources together
dataset_checks.py    findings about the rows as a whole: length bias, balance
agreement.py         agreement of raters who rated the same answers
dominance.py         findings about where rows come from: users, days, labels told by one thing
facets.py            user, model and day of a record
cut_answers.py       findings about a source: answers cut off, newlines lost
text_checks.py       findings in one row's own text: encoding, template left-overs, links
found.py             findings in one row's text as bits, with their words
encoding.py          text decoded with the wrong encoding, restored
exporter_damage.py   JSON as text, escaped newlines, half of the reasoning
repetition.py        answers that repeat themselves
languages.py         the language of a text; answers in another one than their prompt
private_data.py      personal data: e-mail and IP addresses, phones; all kinds together
account_numbers.py   numbers of cards and bank accounts
secret_keys.py       keys, tokens, passwords in addresses
scrub.py             personal data and keys replaced by their kind
presidio.py          what Presidio sees besides
refusals.py          answers that only refuse
refusal_languages.py   the same in other languages than English
plain_refusals.py      the same without an apology
near_duplicates.py   clusters of prompts that are nearly the same
minhash.py           MinHash sketches of prompts
findings.py          one finding; findings as JSON and as bits per row
"""
