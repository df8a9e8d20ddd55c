"""An OpenAI-compatible server over HTTP.

client.py    requests: retried, counted, limited
keys.py      API keys that cannot be printed by mistake
replies.py   replies parsed
"""
