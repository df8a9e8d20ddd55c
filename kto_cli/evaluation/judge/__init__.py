"""Which of two answers is better: a judge asked in both orders, the win rate.

win_rate.py       a judge's answers to all prompts, and the win rate
labels.py         labels and scores of single answers
people.py         how far a judge agrees with people; the win rate corrected for its errors
judge.py          what every judge can do; the estimate of calls; the run over all pairs
comparisons.py    two answers to one prompt, in both orders
question.py       the question put to a judge, and its reply parsed
server_judge.py   a chat model behind a server
reward_judge.py   a reward model or classifier on this machine
show.py           the win rate in words and on the screen
store.py          replies of judges, stored by content
export.py         AlpacaEval's files
"""
