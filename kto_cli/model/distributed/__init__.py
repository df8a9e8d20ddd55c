"""One model over several processes: DDP, FSDP2, ZeRO-3.

start.py       torch's switches and accelerate, before CUDA starts
processes.py   which launches are accepted; DDP
fsdp.py        FSDP2: slices of every weight
owned.py       a folder that one launch writes to
zero.py        DeepSpeed ZeRO-3
gathering.py   sharded weights and moments brought together
"""
