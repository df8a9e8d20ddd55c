"""Answers of models to held-out prompts: engines that generate them, a store that keeps them, what they look like."""
