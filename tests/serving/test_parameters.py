"""The parameters of requests: each of OpenAI's is followed, or refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.serving.errors import RequestError
from llmbuild.serving.parameters import (
    NOT_FOLLOWED,
    ChatParameters,
    TextParameters,
    read_parameters,
)

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def refused(body: Any, kind: Any = ChatParameters) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_parameters(kind, body)
    assert caught.value.status == 400
    assert caught.value.to_json()["error"]["type"] == "invalid_request_error"
    return caught.value


def test_what_is_given_is_read() -> None:
    read = read_parameters(
        ChatParameters,
        {**CHAT, "temperature": 0, "stop": "x", "seed": 3, "max_tokens": 5, "stream": True, "user": "ada"},
    )
    assert (read.temperature, read.stops, read.seed, read.longest, read.stream) == (0, ["x"], 3, 5, True)
    assert not read.usage_in_stream
    read = read_parameters(ChatParameters, {**CHAT, "stop": ["x", "y"], "max_tokens": 5, "max_completion_tokens": 6})
    assert (read.stops, read.longest) == (["x", "y"], 6)


def test_null_is_the_same_as_nothing() -> None:
    empty = dict.fromkeys([*NOT_FOLLOWED, *ChatParameters.model_fields])
    assert read_parameters(ChatParameters, {**empty, **CHAT}) == read_parameters(ChatParameters, CHAT)


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_a_parameter_that_is_not_followed_may_ask_for_nothing(name: str) -> None:
    for neutral in NOT_FOLLOWED[name]:
        assert read_parameters(ChatParameters, {**CHAT, name: neutral}) == read_parameters(ChatParameters, CHAT)
    for value in ({"type": "json_object"}, 2, True, "x", ["x"]):
        error = refused({**CHAT, name: value})
        assert (error.param, error.code) == (name, "unsupported_parameter")
        assert f"'{name}'" in error.message


@pytest.mark.parametrize(
    ("wrong", "param", "code", "words"),
    [
        ({"temperature": 2.5}, "temperature", "invalid_value", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "invalid_value", "valid number"),
        ({"temperature": True}, "temperature", "invalid_value", "valid number"),
        ({"top_p": -0.1}, "top_p", "invalid_value", "greater than or equal to 0"),
        ({"presence_penalty": 3}, "presence_penalty", "invalid_value", "less than or equal to 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "invalid_value", "greater than or equal to -2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "greater than or equal to 1"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", "invalid_value", "valid integer"),
        ({"seed": -1}, "seed", "invalid_value", "greater than or equal to 0"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value", "at most 16 items, not 17"),
        ({"stop": [1]}, "stop", "invalid_value", "valid string"),
        ({"stream": "yes"}, "stream", "invalid_value", "valid boolean"),
        (
            {"stream": True, "stream_options": {"inclued_usage": True}},
            "stream_options.inclued_usage",
            "unknown_parameter",
            "did you mean 'include_usage'",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options", None, "needs stream"),
        ({"temprature": 1}, "temprature", "unknown_parameter", "did you mean 'temperature'?"),
        ({"prompt": "x"}, "prompt", "unknown_parameter", "no parameter 'prompt'"),
        ({"messages": []}, "messages", "invalid_value", "at least 1 item"),
        ({"messages": "hi"}, "messages", "invalid_value", "valid list"),
        ({"messages": None}, "messages", "missing_required_parameter", "missing"),
        ({"model": None}, "model", "missing_required_parameter", "missing"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], param: str, code: str | None, words: str) -> None:
    error = refused({**CHAT, **wrong})
    assert (error.param, error.code) == (param, code)
    assert words in error.message


def test_a_body_is_an_object() -> None:
    assert "JSON object" in refused([CHAT]).message


def test_a_prompt_is_a_text_or_ids() -> None:
    for prompt in ("hi", ["hi"], [1, 2]):
        assert read_parameters(TextParameters, {"model": "m", "prompt": prompt}).prompt == prompt
    for wrong in (["a", "b"], [[1]], 1, [True]):
        assert refused({"model": "m", "prompt": wrong}, TextParameters).param == "prompt"
    assert "several prompts are several requests" in str(refused({"model": "m", "prompt": ["a", "b"]}, TextParameters))
    assert refused({"model": "m", "prompt": "x", "echo": True}, TextParameters).param == "echo"
