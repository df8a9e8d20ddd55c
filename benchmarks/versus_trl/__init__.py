"""The parts of train_vs_trl.py: shapes, floor, the two sides, the naive step, the tables."""
