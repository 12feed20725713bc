"""The parameters of a request for an answer: what they are, and which of OpenAI's a model that runs here cannot follow.

A parameter that would change the answer and that is not followed is refused, and one that is unknown too: nothing is left
out without a word.  `null` is the same as a parameter that is not there, as OpenAI has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmbuild.errors import did_you_mean
from llmbuild.printable import either
from llmbuild.serving.errors import RequestError

NOT_FOLLOWED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""OpenAI's parameters that no model here follows, with the values that ask for nothing."""

MOST_STOPS = 16
"""The texts that may end an answer; each is looked for in the whole answer after each token."""

_LARGEST_SEED = (1 << 63) - 1


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Table):
    """What a stream brings besides the answer."""

    include_usage: bool = False
    # Padding that hides lengths from whoever reads the traffic; there is none.
    include_obfuscation: bool = False


class Parameters(_Table):
    """What both endpoints take.  Names and ranges are those of OpenAI; `repetition_penalty` is MLC's."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] = []
    seed: Annotated[int, Field(ge=0, le=_LARGEST_SEED)] | None = None
    # Names that say who asks or what for, and change no answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None

    @property
    def longest(self) -> int | None:
        """The most tokens of the answer."""
        return self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The texts that end the answer besides the model's own."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def usage_in_stream(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatParameters(Parameters):
    """Of `/v1/chat/completions`."""

    messages: Annotated[list[Any], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def longest(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class TextParameters(Parameters):
    """Of `/v1/completions`: a text, or token ids, that is continued as it is."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]


_FORMS = {"prompt": "it is one text, or the ids of its tokens; several prompts are several requests"}
"""What a parameter is, where pydantic's words are about all its forms at once."""

Read = TypeVar("Read", bound=Parameters)


def read_parameters(kind: type[Read], body: Any) -> Read:
    """The parameters in a request's JSON; raises RequestError for what is wrong, or asks for what is not there."""
    if not isinstance(body, dict):
        raise RequestError("the body of the request must be a JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    for name in given.keys() & NOT_FOLLOWED.keys() - kind.model_fields.keys():
        _require_neutral(name, given.pop(name))
    try:
        read = kind.model_validate(given)
    except ValidationError as error:
        raise _error(kind, error) from None
    if read.stream_options is not None and not read.stream:
        raise RequestError("stream_options needs stream = true", param="stream_options")
    return read


def _require_neutral(name: str, value: Any) -> None:
    """Raise RequestError unless the value of a parameter that is not followed asks for nothing."""
    neutral = NOT_FOLLOWED[name]
    if any(value == one and type(value) is type(one) for one in neutral):
        return
    only = f" other than {either(map(json.dumps, neutral))}" if neutral else ""
    raise RequestError(f"this server does not support '{name}'{only}", param=name, code="unsupported_parameter")


def _error(kind: type[Parameters], found: ValidationError) -> RequestError:
    """The first mistake that pydantic found, in OpenAI's form."""
    first = found.errors(include_url=False, include_input=False, include_context=False)[0]
    # Members of a union stand in the place of the mistake by the names of their types.
    path = [str(part) for part in first["loc"]][: 2 if first["loc"][0] == "stream_options" else 1]
    param = ".".join(path)[:100]
    if first["type"] == "missing":
        return RequestError(f"the parameter '{param}' is missing", param=param, code="missing_required_parameter")
    if first["type"] == "extra_forbidden":
        known = [*kind.model_fields, *NOT_FOLLOWED] if len(path) == 1 else list(StreamOptions.model_fields)
        hint = did_you_mean(path[-1][:100], known)
        return RequestError(
            f"there is no parameter '{param}'" + (f": {hint}" if hint else ""), param=param, code="unknown_parameter"
        )
    words = sorted({_sentence(each["msg"]) for each in found.errors() if str(each["loc"][0]) == path[0]})
    said = _FORMS.get(param) or ", or ".join(words)
    return RequestError(f"'{param}' is wrong: {said}", param=param, code="invalid_value")


def _sentence(words: str) -> str:
    return words[:1].lower() + words[1:].replace(" after validation", "")
