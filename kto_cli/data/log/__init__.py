"""A product's own log: which column holds what, and rules that make a label of columns.

format.py      the `log` format: rows of any table whose columns the options name
columns.py     which column holds the prompt, the answer, the label
labels.py      what makes a row desirable or undesirable
rules.py       the language of --desirable and --undesirable: parser
rule_lexer.py  a rule's words
rule_ast.py    a rule's tree
rule_eval.py   what a rule says of a row: true, false, unknown or a fault
"""
