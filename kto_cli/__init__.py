"""kto: align language models with desirable / undesirable feedback (arXiv 2402.01306)."""

__version__ = "0.1.0"
