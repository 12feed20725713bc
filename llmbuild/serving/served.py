"""The models of a server, by the names that requests use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbuild.conversation.prompt import prefix_token_ids
from llmbuild.errors import LlmbuildError, did_you_mean
from llmbuild.runtime.model import Model
from llmbuild.runtime.sampling import SAMPLING_NAMES, Sampling
from llmbuild.serving.errors import RequestError
from llmbuild.serving.messages import read_messages
from llmbuild.serving.parameters import ChatParameters, Parameters, TextParameters

MOST_TOKENS = 1 << 15
"""The end of an answer of a model whose window slides, where neither the request nor the server sets one."""


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model.  `created` is the time of its build in seconds, `most` the server's limit of an answer's tokens."""

    name: str
    model: Model
    created: int
    most: int | None = None

    def chat_prompt(self, asked: ChatParameters) -> list[int]:
        """The token ids of a conversation.  Raises RequestError for one that is invalid or does not fit the context."""
        system, turns = read_messages(asked.messages)
        return self._fitting("messages", lambda: self.model.render([*turns, ("assistant", None)], system))

    def text_prompt(self, asked: TextParameters) -> list[int]:
        """The token ids of a prompt: of a text with those that begin each prompt of the model.  Raises as `chat_prompt`."""
        prompt = asked.prompt
        if isinstance(prompt, list) and not isinstance(prompt[0] if prompt else 0, str):
            return self._fitting("prompt", lambda: self._checked_ids(prompt))
        text = prompt if isinstance(prompt, str) else str(prompt[0])
        template = self.model.config["conv_template"]
        return self._fitting("prompt", lambda: [*prefix_token_ids(template), *self.model.tokens(text)])

    def answer(self, prompt: Sequence[int], asked: Parameters, cancelled: Callable[[], bool]) -> Iterator[str]:
        """The pieces of the answer; it ends at the next token once `cancelled` is true."""
        given = {name: getattr(asked, name) for name in SAMPLING_NAMES}
        limits = [limit for limit in (asked.longest, self.most) if limit is not None]
        return self.model.complete(
            prompt,
            Sampling.from_config(self.model.config, **given),
            seed=asked.seed,
            max_tokens=min(limits, default=min(self.model.context, MOST_TOKENS)),
            stop=asked.stops,
            exact=True,
            cancelled=cancelled,
        )

    def to_json(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "llmbuild"}

    def _checked_ids(self, ids: Sequence[Any]) -> list[int]:
        beyond = next((one for one in ids if not 0 <= one < self.model.vocab_size), None)
        if beyond is not None:
            raise RequestError(
                f"there is no token {beyond}: the vocabulary has {self.model.vocab_size}",
                param="prompt",
                code="invalid_value",
            )
        return list(ids)

    def _fitting(self, param: str, prompt: Callable[[], list[int]]) -> list[int]:
        try:
            ids = prompt()
        except LlmbuildError as error:
            # The template lacks a role, or the model has no tokenizer.
            why = f": {error.why}" if error.why else ""
            raise RequestError(f"{error.what}{why}", param=param, code="invalid_value") from None
        if not ids:
            raise RequestError("the prompt has no tokens", param=param, code="invalid_value")
        if len(ids) >= self.model.context:
            raise RequestError(
                f"this model's context has {self.model.context} tokens, and the prompt has {len(ids)}: "
                "shorten the conversation",
                param=param,
                code="context_length_exceeded",
            )
        return ids


def find_model(models: Mapping[str, Served], name: str) -> Served:
    """The model of a request; raises RequestError for a name that there is not."""
    found = models.get(name)
    if found is not None:
        return found
    hint = did_you_mean(name, models) or f"there is {', '.join(models)}"
    raise RequestError(f"there is no model '{name[:200]}': {hint}", param="model", code="model_not_found", status=404)
