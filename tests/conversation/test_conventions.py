"""Random conventions that MLC's fields can express: each is found, whatever its marks are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmbuild.conversation.own_template import derive_template
from tests.conversation.test_own_template import TALKS, same_ids
from tests.helpers.chat_templates import Checkpoint


def convention(dice: random.Random) -> str:
    """A chat template in Jinja that is one of these on purpose: what stands at each place is drawn."""
    begin = dice.choice(["", "", "{{ bos_token }}", "<|begin|>"])
    open_, shut = dice.choice([("<|", "|>"), ("<|im_start|>", ""), ("### ", ":"), ("[", "]"), ("", ": ")])
    user, assistant = dice.choice([("user", "assistant"), ("USER", "ASSISTANT"), ("human", "bot"), ("U", "A")])
    gap = dice.choice(["", " ", "\n", "\n\n"])
    ends = dice.choice(
        [("<|end|>", "<|end|>"), ("<|end|>\n", "<|end|>\n"), ("\n", "</s>"), ("\n\n", "\n\n"), ("<|a|>", "</s>\n")]
    )
    header = dice.choice([gap, gap, gap.rstrip(), gap + "<think>\n"])

    def said(text: str) -> str:
        return "{{ '" + text.replace("\n", "\\n") + "' }}"

    one = {"user": open_ + user + shut + gap, "assistant": open_ + assistant + shut + gap}
    system = open_ + "system" + shut + gap
    kind = dice.choice(["plain", "default", "always", "merged", "refused"])
    head = "{% set s = '' %}{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
    head += "{% set messages = messages[1:] %}{% endif %}"
    block = said(system) + "{{ s }}" + said(ends[0])
    head += {
        "plain": "{% if s %}" + block + "{% endif %}",
        "default": "{% if not s %}{% set s = 'You are kind.' %}{% endif %}" + block,
        "always": block,
        "merged": "",
        "refused": "{% if s %}{{ raise_exception('no system message') }}{% endif %}",
    }[kind]
    inside = "{% if loop.first and s %}{{ s }}" + said("\n\n") + "{% endif %}" if kind == "merged" else ""
    turns = (
        "{% for m in messages %}{% if m.role == 'user' %}"
        + said(one["user"])
        + inside
        + "{{ m.content }}"
        + said(ends[0])
        + "{% else %}"
        + said(one["assistant"])
        + "{{ m.content }}"
        + said(ends[1])
        + "{% endif %}{% endfor %}"
    )
    prompt = "{% if add_generation_prompt %}" + said(open_ + assistant + shut + header) + "{% endif %}"
    return begin + head + turns + prompt


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(12, 200))])
def test_a_convention_is_found(seed: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, convention(random.Random(seed)))
    derived = derive_template(checkpoint.found, checkpoint.encoder)
    assert derived.wrong == ()
    for talk in TALKS:
        if derived.no_system is None or talk[0][0] != "system":
            same_ids(derived.fields, checkpoint, talk)
