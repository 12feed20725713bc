"""How the parts of a key read in reasons."""

from __future__ import annotations

from pathlib import Path

from llmbuild.conversation.templates import resolve_template
from llmbuild.plan.spelling import spell, words


def test_a_conversation_template_is_known_by_its_name() -> None:
    assert (words("conversation"), spell("checkpoint!")) == ("conversation template", "checkpoint!")
    assert spell(resolve_template("chatml", Path())) == "chatml"
    assert words("conversation/seps") == "conversation template seps"
    assert spell({"name": "q4f32_1", "bits": 4}) == '{"name": "q4f32_1", "bits": 4}'
