"""Which of two answers is better: a judge is asked in both orders, and what it said is kept."""
