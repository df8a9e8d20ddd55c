"""Losses and batches: values in, values out; torch and the standard library only.

rows.py             token sequences and rows
losses.py           KTO loss and z_ref (Eq. 7, 8)
loss_kinds.py       losses by name: needs, settings, sources; no torch
halos.py            a check of human-aware losses (Definition 3.4)
value_functions.py  L(u) of the unpaired losses: logistic, concave, linear, kahneman-tversky
custom_loss.py      --loss MODULE:FUNCTION
pair_losses.py      dpo, ipo, slic, simpo, orpo, apo, nca
offline_ppo.py      offline PPO: advantages, and the loss of single tokens
humanline.py        log-ratios of single tokens kept within bounds
ragged.py           numbers of rows of unequal length
objectives.py       the loss of an effective batch, in parts, and its reference point
mismatch.py         mismatched completion of each row
weights.py          lambda_d and lambda_u from class counts (Eq. 8)
logps.py            completion log-probs, the head computed in tiles
plan.py             effective batches of an epoch; the learning rate of a step
pairs.py            which rows make a pair
pieces.py           rows of one prompt or conversation that share a batch
transfer.py         tensors moved to a device without waiting for its queue
packing.py          sequences assigned to processes and micro-batches
prefix_order.py     lexicographic order of sequences
prefix_tree.py      layout of a packed batch: each prefix once, who attends to whom
batches.py          packed and padded batches
optimizers.py       AdamW for bfloat16 weights
rounding.py         finished weights in 16 bits
statistics/         AUC, intervals, breakdown, win rates, comparison, the verdict in words
theory/             the paper's theorems, computed: constructions, gradients, random worlds
"""
