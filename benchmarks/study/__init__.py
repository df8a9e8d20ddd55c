"""The study: what `kto train` does at settings of interest, cell by cell, on data and a model that the caller names.

__main__      the command line
cells         a cell is one `kto train`, and `kto eval` where asked: several at a time, resumable by key, as JSON lines
tables        which cells answer which question
page          docs/study.md: its tables, computed from results.jsonl and stories.jsonl
paper         the authors' judged runs, from paper.jsonl
z_ref         ways to estimate z_ref, from z_ref.jsonl; its own command line
markdown      a table in Markdown
figure        reward against distance, as SVG

Small worlds, whose reward is computed, so that answers of the trained model are scored exactly:

small         the command line of their tables
worlds        model, pairs and reward: stories, and the built-in one (words.json: which words earn)
variants      training pairs with rows left out or labels wrong
drawing       answers and log-probs of a small model
trials        one run: `kto train` in this process, and what came of it
questions     which conditions are compared
schedule      learning rates first, then the seeds that count; several at a time, resumable by key
contrasts     paired differences, intervals, Holm's correction
small_tables  their tables in Markdown
"""
