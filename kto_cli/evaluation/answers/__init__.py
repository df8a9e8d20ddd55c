"""Prompts answered by models: engines, seeded sampling, statistics of the answers.

answering.py    validation prompts answered by several models
asking.py       models and prompts as engines take them
records.py      question, answer, decoding, model
choose.py       the engine
probe.py        whether continuous batching works with the model
continuous.py   transformers' continuous batching
batching.py     transformers' manager of it: versions, attention, sizes, noise
padded.py       left-padded batches
vllm.py         vLLM
server.py       an OpenAI-compatible server
noise.py        sampling as a function of seed, prompt and position
store.py        answers, stored by content
sampling.py     several answers to each prompt: seeds, draws
sample_prompts.py  the prompts of kto sample
sample_file.py  its file
statistics.py   length, endings, repetition, variety
"""
