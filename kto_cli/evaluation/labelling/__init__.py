"""People label answers on a page of this machine.

items.py        what is shown at once: one answer, or two side by side
from_file.py    items of a file of answers
from_eval.py    items of what kto eval saved: answers of checkpoints, validation rows, the most informative first
label_file.py   the file of labels: JSON lines that kto binarize reads
session.py      who has labelled what, what comes next, undo
agreement.py    how far people agree
server.py       the page over HTTP, for this machine alone
page.py         the page: page.html.j2, page.css, page.js and the style of the report
"""
