"""Prompts compared with strings written out by hand, and with the chat templates of published models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.conversation.prompt import Message, prefix_token_ids, render_prompt
from llmbuild.conversation.templates import TEMPLATE_NAMES, resolve_template
from llmbuild.errors import InputError

ASK: list[Message] = [("user", "Hi"), ("assistant", None)]
TALK: list[Message] = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", None)]
POLITE = "You are a helpful, respectful and honest assistant."


@pytest.mark.parametrize(
    ("name", "system", "messages", "expected"),
    [
        (
            "chatml",
            "S",
            TALK,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("chatml_nosystem", None, ASK, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        ("redpajama_chat", None, TALK, "<human>: Hi\n<bot>: Hello\n<human>: Bye\n<bot>:"),
        (
            "llama-2",
            None,
            TALK,
            f"[INST] <<SYS>>\n{POLITE}\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST] ",
        ),
        (
            "llama-3",
            None,
            ASK,
            f"<|start_header_id|>system<|end_header_id|>\n\n{POLITE}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
            "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral_default", "S.", TALK, "[INST] S.Hi [/INST] Hello [INST] Bye [/INST]"),
        ("codellama_instruct", None, ASK, "[INST] Hi [/INST] "),
        ("codellama_completion", None, [("user", "def f(")], "def f("),
        ("LM", None, [("user", "Once upon")], "Once upon"),
        (
            "tinyllama_v1_0",
            "S",
            ASK,
            "<|system|>\nS</s><|user|>\nHi</s><|assistant|>\n",
        ),
        (
            "qwen3",
            "S",
            [("user", "a"), ("assistant", "<think>hm</think>\n\nb"), ("user", "c"), ("assistant", None)],
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_known_prompts(name: str, system: str | None, messages: list[Message], expected: str) -> None:
    assert render_prompt(resolve_template(name, Path()), messages, system) == expected


def test_the_reasoning_of_the_last_turn_is_kept() -> None:
    template = resolve_template("qwen3", Path())
    assert "<think>hm</think>" in render_prompt(template, [("user", "a"), ("assistant", "<think>hm</think>b")])


def test_functions_are_listed_once_at_the_last_place() -> None:
    template = {**resolve_template("gorilla", Path()), "function_string": "F"}
    prompt = render_prompt(template, [("user", "a"), ("assistant", "b"), ("user", "c")], "")
    assert prompt == "USER: <<question>> a <<function>> \nASSISTANT: b</s>USER: <<question>> c <<function>> F\n"


def test_the_templates_own_messages_come_first() -> None:
    template = {**resolve_template("redpajama_chat", Path()), "messages": [["user", "x"], ["assistant", "y"]]}
    assert render_prompt(template, [("user", "z")]) == "<human>: x\n<bot>: y\n<human>: z\n"


def test_text_that_looks_like_a_placeholder_is_not_replaced_in_the_system_message() -> None:
    template = resolve_template("redpajama_chat", Path())
    assert render_prompt(template, [("user", "{user_message}")]) == "<human>: {user_message}\n"


def test_nothing_renders_to_nothing() -> None:
    assert render_prompt(resolve_template("LM", Path()), []) == ""


def test_an_unknown_role() -> None:
    with pytest.raises(InputError, match="no role 'tool'"):
        render_prompt(resolve_template("chatml", Path()), [("tool", "x")])


@pytest.mark.parametrize(("name", "ids"), [("chatml", []), ("llama-2", [1]), ("llama-3_1", [128000])])
def test_prefix_token_ids(name: str, ids: list[int]) -> None:
    assert prefix_token_ids(resolve_template(name, Path())) == ids


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_every_template_renders_a_conversation(name: str) -> None:
    prompt = render_prompt(resolve_template(name, Path()), TALK)
    assert prompt.index("Hi") < prompt.index("Hello") < prompt.index("Bye")
    assert json.dumps(prompt)


def test_chatml_agrees_with_a_published_chat_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from tests.helpers.checkpoints import write_tokenizer

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    write_tokenizer(tmp_path, "byte-level")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": "S"}] + [{"role": role, "content": text} for role, text in TALK if text]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert render_prompt(resolve_template("chatml", Path()), TALK, "S") == expected
