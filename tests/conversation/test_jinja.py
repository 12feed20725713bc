"""The worker that renders chat templates: transformers' settings and helpers, and the limits that it has."""

from __future__ import annotations

import pytest

from llmbuild.conversation import jinja
from llmbuild.conversation.jinja import Chat, JinjaError, render_chats
from llmbuild.errors import ToolchainError

TALK = (("system", " Be kind. "), ("user", "<b>Hi</b>\n"), ("assistant", "Hello"), ("user", "Bye"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

TEMPLATES = {
    "loop": "{% for m in messages %}{{ loop.index }}{{ m.role }}: {{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
    "blocks are trimmed": "  {% if true %}\n  a\n  {% endif %}\nb\n",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "tojson": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'ä': '<'} | tojson(ensure_ascii=True) }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": "{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}",
    "dict": "{{ dict(a=1) }}{{ dict.fromkeys('ab') }}",
    "no tools": "{{ tools is none }}{{ documents is none }}{{ tools is defined }}{{ enable_thinking is defined }}",
    "prompt": "{{ add_generation_prompt }}{{ bos_token }}{{ unk_token is defined }}",
    "methods": "{{ messages[1].content.split('Hi')[-1].lstrip() }}{{ messages[1:] | length }}{{ messages[::-1][0].role }}",
    "macro": "{% macro f(x) -%} {{ x }} {%- endmacro %}{{ f(messages[0].content) }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_renders_what_transformers_renders(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    chat = [{"role": role, "content": text} for role, text in TALK]
    found = render_chats(TEMPLATES[name], TOKENS, [Chat(TALK, True), Chat(TALK, False)])
    for prompt, one in zip((True, False), found, strict=True):
        (expected,), _ = render_jinja_template(
            conversations=[chat], chat_template=TEMPLATES[name], add_generation_prompt=prompt, **TOKENS
        )
        assert one.text == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ strftime_now('%Y') }}", "'strftime_now' is undefined"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ namespace(_x=1) }}", "underscore"),
        ("{{ range(1000000) | list }}", "Range too big"),
        ("{{ 1 // (messages | length - 4) }}", "zero"),
        ("{{ 'x' * (messages | length * 10 ** 10) }}", "MemoryError"),
        ("{{ '\\ud800' }}", "surrogate"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_what_a_template_cannot_do(template: str, said: str) -> None:
    (found,) = render_chats(template, {}, [Chat(TALK)])
    assert found.text is None
    assert said in found.refusal


def test_a_fixed_date_of_the_template_counts() -> None:
    template = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}26 Jul 2024{% endif %}"
    assert render_chats(template, {}, [Chat(TALK)])[0].text == "26 Jul 2024"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a\n{% for %}", "not a valid Jinja template: line 2"),
        ("{{ 'x' * 600000 }}", "more than 1,000,000 characters"),
        ("{{ x | nothing }}", "No filter named 'nothing'"),
    ],
)
def test_a_template_that_cannot_be_used(template: str, said: str) -> None:
    with pytest.raises(JinjaError, match=said):
        render_chats(template, {}, [Chat(TALK), Chat(TALK)])


def test_a_template_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja, "SECONDS", 0.2)
    endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    with pytest.raises(JinjaError, match=r"more than 0\.2 seconds"):
        render_chats(endless, {}, [Chat(TALK)])


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja.sys, "executable", "/nowhere/python")
    with pytest.raises(ToolchainError, match="no process can be started for a chat template"):
        render_chats("x", {}, [Chat(TALK)])
