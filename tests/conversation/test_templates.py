"""Conversation templates: the registered ones, and a user's own file."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from llmbuild.canonical import canonical_json
from llmbuild.conversation.prompt import render_prompt
from llmbuild.conversation.templates import PLACEHOLDERS, TEMPLATE_NAMES, resolve_template
from llmbuild.errors import InputError, LlmbuildError
from tests.helpers.replaced_parts import mutations

FIELDS = [
    "name",
    "system_template",
    "system_message",
    "system_prefix_token_ids",
    "add_role_after_system_message",
    "roles",
    "role_templates",
    "messages",
    "seps",
    "role_content_sep",
    "role_empty_sep",
    "stop_str",
    "stop_token_ids",
    "strip_reasoning_in_history",
    "function_string",
    "use_function_calling",
]
MINE = {"roles": {"user": "U", "assistant": "A"}, "seps": ["\n"]}


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_every_registered_template_has_all_fields_in_order(name: str) -> None:
    template = resolve_template(name, Path())
    assert list(template) == FIELDS
    assert template["name"] == name
    assert list(template["role_templates"])[:3] == ["user", "assistant", "tool"]
    assert all(PLACEHOLDERS[role] in text for role, text in template["role_templates"].items())


def test_the_templates_of_the_supported_families_are_there() -> None:
    expected = """redpajama_chat llama-2 llama-3 llama-3_1 chatml chatml_nosystem mistral_default LM codellama_completion
    codellama_instruct tinyllama_v1_0 open_hermes_mistral neural_hermes_mistral hermes2_pro_llama3 hermes3_llama-3_1 dolly oasst
    stablelm gorilla gorilla-openfunctions-v2 wizardlm_7b wizard_coder_or_math qwen2 qwen3 gpt2 gemma_instruction
    gemma3_instruction phi-2 phi-3 phi-3-vision phi-4 stablelm-2 stablelm-3b olmo olmo2 orion aya-23 nemotron glm gpt_bigcode
    llava ministral3 ministral3_reasoning"""
    assert set(expected.split()) <= set(TEMPLATE_NAMES)


def test_redpajama() -> None:
    template = resolve_template("redpajama_chat", Path())
    assert template["roles"] == {"user": "<human>", "assistant": "<bot>"}
    assert (template["seps"], template["role_content_sep"], template["role_empty_sep"]) == (["\n"], ": ", ":")
    assert (template["stop_str"], template["stop_token_ids"]) == (["<human>"], [0])
    assert template["system_prefix_token_ids"] is None


def test_ministral_3_has_the_system_message_before_the_first_question() -> None:
    talk = [("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye"), ("assistant", None)]
    rendered = render_prompt({**resolve_template("ministral3", Path()), "system_message": "Be kind."}, talk)
    assert rendered == "[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]Hi[/INST]Yes?</s>[INST]Bye[/INST]"


def test_an_unknown_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="llama-3_1") as caught:
        resolve_template("llama-3.1", Path())
    assert "did you mean" in str(caught.value)


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_users_template(tmp_path: Path, suffix: str) -> None:
    text = (
        json.dumps({**MINE, "stop_token_ids": [7]})
        if suffix == ".json"
        else 'seps = ["\\n"]\nstop_token_ids = [7]\n[roles]\nuser = "U"\nassistant = "A"\n'
    )
    (tmp_path / f"mine{suffix}").write_text(text)
    template = resolve_template(f"mine{suffix}", tmp_path)
    assert list(template) == FIELDS
    assert (template["name"], template["stop_token_ids"], template["roles"]) == ("mine", [7], MINE["roles"])
    assert template == resolve_template(f"./mine{suffix}", tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"roles": None}, "roles: must be a table of strings, not null"),
        ({"roles": {"user": "U"}}, "the role 'assistant' is missing"),
        ({"roles": {"user": "U", "assistant": "A", "asistant": "A"}}, "did you mean 'assistant'?"),
        ({"seps": []}, "seps: must be a list of one or two strings"),
        ({"seps": ["a", "b", "c"]}, "seps: must be a list of one or two strings"),
        ({"seps": "\n"}, "seps: must be a list of one or two strings"),
        ({"stop_token_ids": [-1]}, "stop_token_ids: must be a list of token ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids: must be a list of token ids"),
        ({"stop_str": "</s>"}, "stop_str: must be a list of strings"),
        ({"add_role_after_system_message": "no"}, "add_role_after_system_message: must be true or false"),
        (
            {"role_templates": {"user": "no text"}},
            "role_templates.user: the template of a role must contain {user_message}",
        ),
        ({"messages": [["user"]]}, "messages: must be a list of [role, text] pairs"),
        ({"system_mesage": "x"}, "did you mean 'system_message'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({**MINE, **change}))
    with pytest.raises(LlmbuildError) as caught:
        resolve_template("mine.json", tmp_path)
    assert said in str(caught.value)
    assert "mine.json" in str(caught.value)
    assert caught.value.exit_code == InputError.exit_code


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"rolls": {}, "stop_str": 3}))
    with pytest.raises(LlmbuildError) as caught:
        resolve_template("mine.json", tmp_path)
    for part in ("rolls", "'roles'", "'seps'", "stop_str"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.json", b"{"),
        ("mine.json", b"[]"),
        ("mine.json", b"\xff\xfe"),
        ("mine.json", b"[" * 100_000),
        ("mine.toml", b"roles = "),
        ("gone.json", None),
    ],
)
def test_a_file_that_is_not_a_template(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        resolve_template(name, tmp_path)


SMALL = {
    "name": "mine",
    "roles": {"user": "U", "assistant": "A"},
    "role_templates": {"user": "{user_message}"},
    "seps": ["\n"],
    "messages": [["user", "hi"]],
    "stop_token_ids": [1],
    "add_role_after_system_message": True,
}


def test_any_value_in_any_place_is_taken_or_refused(tmp_path: Path) -> None:
    for value in mutations(SMALL):
        (tmp_path / "t.json").write_text(json.dumps(value))
        with contextlib.suppress(LlmbuildError):
            assert canonical_json(resolve_template("./t.json", tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", b'{"name": "\\ud800"}', "./t.json: the conversation template is refused"),
        ("t.json", b'{"stop_token_ids": [' + b"9" * 5000 + b"]}", "has 5000 digits"),
        ("t.json", b"[" * 100_000, "nested too deeply"),
        ("t.json", b'{"seps": [NaN]}', "NaN is no JSON number"),
        ("t.json", b" " * (5 << 20), "it has more than 4194304 bytes"),
        (
            "t.toml",
            b"name = 'x'\nstop_token_ids = [" + b"9" * 5000 + b"]",
            "./t.toml:2: the conversation template is not",
        ),
        ("t.toml", b"stop_token_ids = [99999999999]", "must be a list of token ids"),
        ("t.toml", b"name = 1979-05-27", "must be a string"),
        ("t.toml", b"seps = [nan]", "must be a list of one or two strings"),
    ],
)
def test_what_no_template_can_hold(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LlmbuildError) as refused:
        resolve_template(f"./{name}", tmp_path)
    assert said in str(refused.value)


def test_a_template_whose_name_cannot_be_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("./a\0b.json", "./" + "x" * 300 + ".json", "./pipe.json"):
        with pytest.raises(InputError, match="cannot be read"):
            resolve_template(name, tmp_path)
