"""A causal language model: loaded, sharded, fed with tokens, asked for log-probs.

locate.py      models found: local folders, the Hub
folder.py      a model folder checked before it is loaded
written_files.py  folders that kto wrote: every file compared with its checksum
identity.py    fingerprint of a model; what names its log-probs, tokens and answers
load.py        models and tokenizers: loaded
text_part.py   the text part of an image-text model
source.py      a model as it is named: a whole one, or an adapter on another; opened, loaded
linear_layers.py  the linear layers that adapters go onto
lora.py        LoRA and DoRA adapters: added, saved, attached
base_weights.py  weights below adapters: held narrow, merged
precision.py   dtypes of weights and arithmetic; 4-bit base weights
rounded_weights.py  weights as bfloat16 products take them, rounded at random
stored_dtypes.py  dtypes of a model's weights on disk
model_sizes.py  sizes of a model, and settings that decide its memory
activation_memory.py  bytes of activations for a token, from sizes alone
memory_need.py  memory of training by part, from sizes alone
lengths.py     how many tokens a sequence may have
layers.py      decoder layers compiled, or checkpointed
attention.py   packed attention in the place of a model's own
packed_pass.py  state of one forward pass over a packed batch
layer_attention.py  attention of one layer: the first way below that can follow it
varlen_attention.py  one variable-length call a layer, on GPUs
varlen_plan.py  which keys each segment reads, gathered once
varlen_kernels.py  the variable-length kernels of torch, and a plain reference
tree_attention.py  a call a segment and a shared span, on CPUs, without masks or copies
segment_attention.py  a call a segment behind a copy of its prefix
determinism.py  deterministic algorithms: preferred, or required
scorer.py      sequences -> completion log-probs: packed, padded or plain
token_classes.py  values that a token classification model sees in a text
value_head.py  the value head of offline PPO
tokens/        rows -> token ids, stored on disk
logprobs/      log-probs of many sequences over processes; the reference's, from the cache
distributed/   DDP, FSDP2, ZeRO-3
"""
