"""Feedback as products export it: one module each, with the results of formats/records.py.

rated_messages.py       ratings on messages inside a chat: one row for each rated answer
open_webui.py           Open WebUI: exported feedback
chat_ui.py              Hugging Face chat-ui: conversations
librechat.py            LibreChat: messages, one document each
openai_preference.py    OpenAI's file of preferences, also Together's, Fireworks' and Azure's
"""
