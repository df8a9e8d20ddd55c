"""A checkpoint exported to be served, and what is served compared with it.

subject.py    what an export holds
targets.py    where it goes: a folder, the Hub, GGUF, Ollama
files.py      files of an exported folder
folder.py     the exported folder: complete or not at all
origin.py     the model below: its public name, its licence
card.py       README.md, by huggingface_hub's ModelCard
hub.py        upload to the Hub
gguf.py       llama.cpp's converters
modelfile.py  Modelfile of Ollama, the chat template in its notation
commands.py   lines to paste that serve it
check.py      a server compared with the checkpoint
requests.py   what the server is asked
local.py      the same computed here
"""
