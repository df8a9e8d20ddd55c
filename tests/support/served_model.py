"""A model behind the stub of an OpenAI-compatible server: greedy chats, and log-probs of a prompt's tokens."""

from __future__ import annotations

from typing import Any

import torch
from judge_server import Handler


class ServedModel:
    """Behaviour of a `judge_server.JudgeServer` with a model of transformers in it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: str | None = None,
        echo: bool = True,
        noise: float = 0.0,
        strip: bool = False,
        counts: bool = True,
        spoken: bool = False,
    ) -> None:
        """`template`: another chat template. `echo`: log-probs of prompts are given. `noise`: nats a token, as rounding
        gives. `strip`: white space around answers is removed. `counts`: tokens of prompts are counted. `spoken`:
        log-probs of an answer's tokens are given; else that is refused."""
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.echo, self.noise, self.strip, self.counts, self.spoken = echo, noise, strip, counts, spoken
        self._random = torch.Generator().manual_seed(0)

    def __call__(self, handler: Handler, asked: dict[str, Any]) -> None:
        if asked.get("logprobs") is True and not self.spoken:
            handler.reply(400, {"detail": "logprobs is not supported."})
        elif handler.path.endswith("/chat/completions"):
            ids = self.tokenizer.apply_chat_template(
                asked["messages"], add_generation_prompt=True, chat_template=self.template, return_dict=True
            )["input_ids"]
            self._chat(handler, list(ids), asked)
        elif not self.echo and isinstance(asked["prompt"], list):
            handler.reply(400, {"detail": "prompt must be a string."})
        elif isinstance(asked["prompt"], str):
            self._chat(handler, self.tokenizer(asked["prompt"]).input_ids, asked)
        else:
            handler.reply(200, {"choices": [{"text": "", "logprobs": self._logps(asked["prompt"])}]})

    def _logps(self, ids: list[int]) -> dict[str, Any]:
        """Of the prompt's tokens and of one more, as `echo` with `max_tokens` 1 gives."""
        with torch.no_grad():
            found = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        own = found[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        own = own + self.noise * torch.randn(own.shape, generator=self._random)
        return {"token_logprobs": [None, *own.tolist(), found[-1].max().item()]}

    def _chat(self, handler: Handler, ids: list[int], asked: dict[str, Any]) -> None:
        made = self.model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=asked["max_tokens"], pad_token_id=0
        )[0, len(ids) :].tolist()
        text = self.tokenizer.decode(made, skip_special_tokens=True)
        ended = made[-1] in self._ends()
        choice = {"finish_reason": "stop" if ended else "length"}
        text = text.strip() if self.strip else text
        choice |= {"message": {"role": "assistant", "content": text}} if "messages" in asked else {"text": text}
        if self.spoken:
            logps = self._logps([*ids, *made])["token_logprobs"][len(ids) : len(ids) + len(made)]
            texts = [self.tokenizer.decode([one]) for one in made]
            pairs = [{"token": text, "logprob": logp} for text, logp in zip(texts, logps, strict=True)]
            choice |= {"logprobs": {"content": pairs}}
        usage = {"usage": {"prompt_tokens": len(ids)}} if self.counts else {}
        handler.reply(200, {"choices": [choice], **usage})

    def _ends(self) -> set[int]:
        named = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
