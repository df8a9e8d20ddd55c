"""Answers by vLLM, if installed (docs.vllm.ai): its own sampler, seeded for each prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, BadModel, first_line
from kto_cli.common.read import read_json
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question, answerable, prompt_seed

AT_ONCE = 256
"""Questions per call; vLLM returns when all are answered, so a kill loses at most these."""


class Vllm:
    """vLLM with a model that it loads from its folder."""

    name = "vllm"
    family = "vllm"

    def __init__(self, subject: AnsweringModel, **options: Any) -> None:
        """`options` go to `vllm.LLM`.

        Raises:
            BadInput: vLLM is not installed.
        """
        try:
            import vllm
        except ImportError as error:
            raise BadInput(f"vLLM cannot be used here: {error}.", "pip install vllm, or omit --engine.") from error
        self._vllm = vllm
        self._subject = subject
        self._options = options
        self._model: Any = None

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """Answers in order, hundreds at a time.

        Raises:
            BadModel: vLLM cannot load the model.
        """
        indices, silent = answerable(self._subject, questions, decoding)
        yield from silent
        for start in range(0, len(indices), AT_ONCE):
            some = indices[start : start + AT_ONCE]
            outputs = self._loaded(decoding).generate(
                [{"prompt_token_ids": list(questions[index].tokens)} for index in some],
                [self._sampling(questions[index], decoding) for index in some],
                use_tqdm=False,
                lora_request=self._adapter(),
            )
            for index, output in zip(some, outputs, strict=True):
                yield index, self._read(output.outputs[0])

    def _read(self, output: Any) -> Answer:
        """vLLM's ids may or may not include the end token; its finish reason decides."""
        answer = self._subject.answer(output.token_ids)
        return answer._replace(ended=answer.ended or output.finish_reason == "stop")

    def _sampling(self, question: Question, decoding: Decoding) -> Any:
        return self._vllm.SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_tokens=self._subject.room(question, decoding),
            seed=prompt_seed(decoding.seed, question.tokens) >> 32,
            stop_token_ids=list(self._subject.ends),
            detokenize=False,
        )

    def _loaded(self, decoding: Decoding) -> Any:
        if self._model is not None:
            return self._model
        subject = self._subject
        settings: dict[str, Any] = {
            "model": str(subject.base or subject.folder),
            "dtype": subject.dtype,
            "seed": decoding.seed,
            "trust_remote_code": subject.trust_remote_code,
            # Ignores the model's own generation_config.json (such as a repetition penalty).
            "generation_config": "vllm",
        }
        if subject.context is not None:
            settings["max_model_len"] = subject.context
        if subject.base is not None:
            if subject.stacked:
                what = f"vLLM serves one adapter at a time; {subject.name} is on top of another."
                raise BadModel(what, "Use --engine auto, or --merge.")
            settings |= {"enable_lora": True, "max_lora_rank": rank_for_vllm(subject.folder, subject.name)}
        try:
            self._model = self._vllm.LLM(**settings | self._options)
        except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
            raise BadModel(f"vLLM cannot load {subject.name}: {first_line(error)}", "Use --engine auto.") from error
        return self._model

    def _adapter(self) -> Any:
        if self._subject.base is None:
            return None
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        return LoRARequest(self._subject.name, 1, str(self._subject.folder))


def rank_for_vllm(folder: Path, name: str) -> int:
    """The rank of the adapter in `folder`, rounded up to one that vLLM takes.

    Raises:
        BadModel: vLLM cannot serve this adapter.
    """
    settings = read_json(folder / "adapter_config.json", "the adapter's config", constants=True)
    kind, rank = settings.get("peft_type", "LORA"), int(settings.get("r", 16))
    if kind != "LORA" or settings.get("use_dora"):
        raise BadModel(f"vLLM serves plain LoRA adapters; {name} is another kind.", "Use --engine auto.")
    fitting = [allowed for allowed in (1, 8, 16, 32, 64, 128, 256, 320, 512) if allowed >= rank]
    if not fitting:
        raise BadModel(f"vLLM serves adapters of rank 512 at most; {name} has {rank}.", "Use --engine auto.")
    return fitting[0]
