"""Prompts answered by models: engines, seeded sampling, what answers are like.

answering.py    validation prompts answered by several models
records.py      question, answer, decoding, model
choose.py       the engine, and a probe whether it can be trusted
continuous.py   transformers' continuous batching
padded.py       left-padded batches
vllm.py         vLLM
server.py       an OpenAI-compatible server
noise.py        sampling as a function of seed, prompt and position
store.py        answers kept by content
statistics.py   length, endings, repetition, variety
"""
