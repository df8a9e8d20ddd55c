"""The KTO paper's definitions and theorems as computations, errata included; no model, seconds.

constructions.py  known losses as human-aware losses (Definition 3.4; halos.py checks them), those that fail included
gradients.py      gradient weights of the value functions (Proposition 4.1)
theorems.py       Theorems 4.2 and 4.3, both versions
worlds.py         random worlds in which it is known what people want
optima.py         the policy that each loss leads to in them
comparison.py     KTO or DPO, when?
own_loss.py       a loss of the user's: gradient, invariances, directions
"""
