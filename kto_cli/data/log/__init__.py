"""Logs of a product: columns of prompt, answer and label; rules that turn columns into labels.

format.py      the `log` format: rows of any table, with columns named by options
columns.py     columns of prompt, answer and label: by option or by name
check_labels.py  a label column that means the opposite of good
labels.py      label or score of a row
cell_path.py   a cell by its name, or a part of one by its path
rules.py       the language of --desirable and --undesirable: parser
rule_lexer.py  tokens of a rule
rule_ast.py    syntax tree of a rule
rule_eval.py   value of a rule for a row: true, false, unknown or not applicable
"""
