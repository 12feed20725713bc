"""Messages of requests: text is taken in each of OpenAI's forms, and what a model cannot take is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.serving.errors import RequestError
from llmbuild.serving.messages import read_messages

USER = {"role": "user", "content": "hi"}


def test_text_in_each_form() -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    answer = {"role": "assistant", "content": "ho", "tool_calls": None, "refusal": None, "annotations": []}
    messages = [{"role": "developer", "content": "Be"}, {"role": "user", "content": parts, "name": "ada"}, answer, USER]
    assert read_messages(messages) == ("Be", [("user", "hi"), ("assistant", "ho"), ("user", "hi")])
    assert read_messages([{"role": "system", "content": "Be"}, USER]) == ("Be", [("user", "hi")])


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        ({"role": "tool", "content": "1", "tool_call_id": "x"}, "messages[1]", "tools"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}, "messages[1]", "tools"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content[0]", "'image_url'"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[1].content[0]", "'input_audio'"),
        ({"role": "assistant", "content": "x", "audio": {"id": "y"}}, "messages[1].audio", "sounds"),
        ({"role": "alien", "content": "x"}, "messages[1].role", "no role 'alien'"),
        (
            {"role": "assistant", "content": "x", "prefix": True},
            "messages[1].prefix",
            "no parameter 'messages[1].prefix'",
        ),
        ({"role": "user", "content": [{"type": "text", "text": "x", "size": 1}]}, "messages[1].content[0].size", "no "),
        ({"role": "user"}, "messages", "message 1 has no text"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages", "message 1 has no text"),
        ({"content": "x"}, "messages", "message 1 has no role"),
        ({"role": "system", "content": "x"}, "messages", "put it first"),
        ({"role": "assistant", "content": "x"}, "messages", "nothing to answer"),
        ("hi", "messages", "message 1 is str"),
    ],
)
def test_what_no_model_takes_is_refused(message: Any, param: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_messages([USER, message])
    assert caught.value.param == param
    assert words in caught.value.message
