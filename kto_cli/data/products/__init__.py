"""Feedback as products export it: one module each, with the results of formats/records.py.

rated_messages.py       ratings on messages inside a chat: one row for each rated answer
rating_columns.py       ratings beside the texts of a record, as columns that the rules of a log read
remarks.py              what raters wrote beside their ratings
preset_columns.py       flat exports, read as a log whose columns and rules are known
files_beside.py         files of ratings beside those of what was rated
traced_calls.py         prompt and answer in what tracers record of a call
open_webui.py           Open WebUI: exported feedback
chat_ui.py              Hugging Face chat-ui: conversations
librechat.py            LibreChat: messages, one document each
openai_preference.py    OpenAI's file of preferences, also Together's, Fireworks' and Azure's
langfuse.py             Langfuse: observations joined with their scores
langsmith.py            LangSmith: runs
argilla.py              Argilla: records
label_studio.py         Label Studio: tasks
mlflow.py               MLflow: traces
phoenix.py              Arize Phoenix: spans joined with their annotations
dify.py                 Dify: exported feedback
gradio.py               Gradio: flagged answers of ChatInterface
anything_llm.py         AnythingLLM: exported chats
sql.py                  rows of an SQL query over local files
"""
