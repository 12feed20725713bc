"""Templates derived from chat templates: the fields, the same ids as transformers, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.own_template import Derived, derive_template, settle_template
from llmbuild.conversation.prompt import prefix_token_ids, prompt_parts, render_prompt
from llmbuild.conversation.templates import CHECKPOINT, CHECKPOINT_ANYWAY, resolve_template
from llmbuild.errors import InputError
from tests.helpers.chat_templates import CHATML, TRIMMED, Checkpoint
from tests.helpers.node import REPOSITORY, node_modules

WEB_LLM = "@mlc-ai/web-llm"

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
FIRST_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
)
TURNS = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
ANSWER = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
CONVENTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "chatml": (CHATML, {"render_empty_system_message": False, "stop_str": ["<|im_end|>"], "seps": ["<|im_end|>\n"]}),
    "a begin token": ("{{ bos_token }}" + CHATML, {"system_prefix_token_ids": [1]}),
    "a default system message": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML,
        {"system_message": "You help.", "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n"},
    ),
    "a frame that is always there": (
        FIRST_SYSTEM + "<|sys|>Today: {{ 'never' }}\n{{ s if s is defined else '' }}<|end|>" + TURNS + ANSWER,
        {"system_template": "<|sys|>Today: never\n{system_message}<|end|>", "system_message": ""},
    ),
    "the system message in the first question": (
        FIRST_SYSTEM
        + "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if loop.first and s is defined %}{{ s + '\n\n' }}{% endif %}"
        + "{{ m.content + '<|end|>' }}{% endfor %}"
        + ANSWER,
        {"add_role_after_system_message": False, "system_template": "<|user|>{system_message}\n\n"},
    ),
    "two separators": ("{{ bos_token }}" + INST, {"seps": [" [/INST]", "</s>"], "stop_token_ids": [2]}),
    "a header that thinks": (
        TURNS + "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}",
        {"role_empty_sep": "<think>\n"},
    ),
    "reasoning left out": (
        "{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' and '</think>' in c %}"
        "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|' + m.role + '|>' + c + '<|end|>' }}{% endfor %}" + ANSWER,
        {"strip_reasoning_in_history": True},
    ),
    "no tokens of its own": (
        "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}",
        {"stop_str": ["### user:"], "stop_token_ids": []},
    ),
}

THINKING = (
    "{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' and '</think>' in c and WHERE %}"
    "{% set c = c.split('</think>')[-1].STRIP %}{% endif %}{{ '<|' + m.role + '|>' + c + '<|end|>' }}{% endfor %}"
    + ANSWER
)


def thinking(strip: str, where: str = "true") -> str:
    """A template that leaves out the reasoning of answers at some places, and blanks after it."""
    return THINKING.replace("STRIP", strip).replace("WHERE", where)


# None of them is a probe.
TALKS = (
    (("user", "hi"),),
    (("system", "Speak."), ("user", "1+1"), ("assistant", "2"), ("user", "the end in on")),
    (("user", "a\nb"), ("assistant", "c"), ("user", "d e"), ("assistant", "<b>"), ("user", "Ω")),
)


def derived(directory: Path, template: str, **options: Any) -> tuple[Derived, Checkpoint]:
    checkpoint = Checkpoint(directory, template)
    return derive_template(checkpoint.found, checkpoint.encoder, **options), checkpoint


def same_ids(fields: Any, checkpoint: Checkpoint, talk: tuple[tuple[str, str], ...]) -> None:
    """What the fields make of a conversation is what transformers makes of it, as a whole and by its parts."""
    system = talk[0][1] if talk[0][0] == "system" else None
    turns = [*talk[system is not None :], ("assistant", None)]
    encode, prefix = checkpoint.encoder.encode, prefix_token_ids(fields)
    expected = checkpoint.ids(talk)
    assert [*prefix, *encode(render_prompt(fields, turns, system))] == expected
    assert [*prefix, *(one for part in prompt_parts(fields, turns, system) for one in encode(part))] == expected


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_fields_of_a_convention(name: str, tmp_path: Path) -> None:
    template, expected = CONVENTIONS[name]
    found, checkpoint = derived(tmp_path, template)
    assert found.wrong == ()
    assert {key: found.fields.get(key) for key in expected} == expected
    for talk in TALKS:
        same_ids(found.fields, checkpoint, talk)


def test_the_end_of_an_answer_is_one_token_with_its_text(tmp_path: Path) -> None:
    found, checkpoint = derived(tmp_path, CHATML)
    (text,), (number,) = found.fields["stop_str"], found.fields["stop_token_ids"]
    assert checkpoint.encoder.added[text] == number


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TRIMMED, "with blanks at the ends of a question, the chat template writes"),
        (CHATML.replace("m['content']", "m['content'] | upper"), "does not write each message once and in order"),
        (
            "{% for m in messages %}{{ m.content }}{{ raise_exception('stop here') if loop.index == 2 }}{% endfor %}",
            "stop here",
        ),
        ("{% for %}", "not a valid Jinja template"),
        ("{{ strftime_now('%Y') }}" + CHATML, "today's date has another result each day"),
        (thinking("strip()"), "with blanks at the ends of what follows a thought, "),
        (thinking("strip('\n')"), "with blanks at the ends of what follows a thought, "),
        (thinking("lstrip('\n')", "loop.index0 < messages | length - 2"), "with thinking turns, "),
        (CHATML.replace("m['role'] +", "m['role'] + loop.index | string +"), "where the fields of MLC write"),
        ("nothing", "does not write each message once and in order"),
    ],
)
def test_what_the_fields_cannot_express_is_refused(template: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        derived(tmp_path, template)
    assert said in str(caught.value)
    assert "chat_template" in str(caught.value.where)
    assert len(str(caught.value).splitlines()) < 10


def test_the_nearest_registered_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'chatml_nosystem'") as caught:
        derived(tmp_path, TRIMMED)
    assert f'conv-template = "{CHECKPOINT_ANYWAY}"' in str(caught.value.fix)


@pytest.mark.parametrize("template", ["nothing", "{% for %}"])
def test_a_registered_template_that_differs_everywhere_is_no_advice(template: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        derived(tmp_path, template)
    assert caught.value.fix is not None and "nearest" not in caught.value.fix
    assert "a file of your own" in caught.value.fix


def test_a_tokenizer_that_puts_a_blank_before_each_piece_is_no_use_to_browsers(tmp_path: Path) -> None:
    """The whole prompt is right, and what WebLLM encodes message by message is not."""
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{{ 'assistant:' }}"
    checkpoint = Checkpoint(tmp_path, template, "sentencepiece")
    with pytest.raises(InputError, match="each message by itself, as in browsers, gives"):
        derive_template(checkpoint.found, checkpoint.encoder)


def test_a_tokenizer_that_has_no_token_for_a_text(tmp_path: Path) -> None:
    """A unigram model without a token for unknown pieces."""
    checkpoint = Checkpoint(tmp_path, CHATML)
    tokenizer = json.loads(checkpoint.files["tokenizer.json"])
    tokenizer |= {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]}, "added_tokens": []}
    tokenizer["pre_tokenizer"] = tokenizer["decoder"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="the tokenizer cannot encode a text"):
        settle(checkpoint, CHECKPOINT)
    _, (note,) = settle(checkpoint, resolve_template("chatml", Path()))
    assert "cannot be held against" in note


def settle(checkpoint: Checkpoint, conversation: Any, system_prompt: str | None = None) -> tuple[Any, list[str]]:
    notes: list[str] = []
    found = settle_template(conversation, system_prompt, checkpoint.directory, checkpoint.files, notes.append)
    return found, notes


def test_the_derived_template_is_taken_all_the_same_where_that_is_asked_for(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, TRIMMED)
    found, notes = settle(checkpoint, CHECKPOINT_ANYWAY)
    assert found["roles"]["user"] == "<|im_start|>user"
    assert [note.partition(":")[0] for note in notes] == [
        "the derived conversation template differs in 4 of 9 conversations"
    ]
    same_ids(found, checkpoint, TALKS[1])


def test_a_named_template_that_differs_is_a_note_with_both_texts(tmp_path: Path) -> None:
    found, (note,) = settle(Checkpoint(tmp_path, CHATML), resolve_template("chatml", Path()))
    assert found == resolve_template("chatml", Path())
    assert note.startswith("conv-template 'chatml' is not the checkpoint's chat template: with a question")
    own = r'"<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"'
    assert f"the checkpoint writes {own} and 'chatml' " + r'"<|im_start|>system\n' in note


def test_a_named_template_that_is_the_checkpoints_needs_no_note(tmp_path: Path) -> None:
    assert settle(Checkpoint(tmp_path, NO_SYSTEM), resolve_template("chatml_nosystem", Path()))[1] == []


def test_a_chat_template_that_cannot_be_used_is_a_note_for_a_named_one(tmp_path: Path) -> None:
    _, (note,) = settle(Checkpoint(tmp_path, "{% for %}"), resolve_template("chatml", Path()))
    assert note.startswith("conv-template 'chatml' cannot be held against the checkpoint's chat template: ")


def test_a_checkpoint_without_a_chat_template(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "", chat_template=None)
    assert settle(checkpoint, resolve_template("chatml", Path()))[1] == []
    with pytest.raises(InputError, match="the checkpoint has no chat template") as caught:
        settle(checkpoint, CHECKPOINT)
    assert '"LM"' in str(caught.value.fix)


def test_without_a_tokenizer_nothing_can_be_derived(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, CHATML)
    (tmp_path / "tokenizer.json").unlink()
    assert settle(checkpoint, resolve_template("chatml", Path()))[1] == []
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        settle(checkpoint, CHECKPOINT)


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"added_tokens_decoder": {"310": {"content": "<new1>", "special": True}}}},
        {"tokenizer_config.json": {"additional_special_tokens": ["<new1>"]}},
        {"tokenizer_config.json": {"eos_token": "<new1>"}},
        {"special_tokens_map.json": {"additional_special_tokens": ["<new1>"]}},
        {"added_tokens.json": {"<new1>": 310}},
    ],
    ids=["numbered", "listed", "a role", "the older file", "the oldest file"],
)
def test_a_token_that_only_another_file_adds_is_no_token_of_the_runtime(files: dict[str, Any], tmp_path: Path) -> None:
    """Transformers makes one token of it, and tokenizer.json, which a runtime reads, cuts it into pieces."""
    checkpoint = Checkpoint(tmp_path, CHATML.replace("<|im_start|>", "<new1>"))
    for name, values in files.items():
        path = tmp_path / name
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(old | values))
    (text, *_), encoder = checkpoint.ids((("user", "x"),)), checkpoint.encoder
    assert text != encoder.encode("<new1>")[0] and len(encoder.encode("<new1>")) > 1
    with pytest.raises(InputError) as caught:
        settle(checkpoint, CHECKPOINT)
    assert str(caught.value).startswith("tokenizer.json: lacks '<new1>', which the checkpoint's chat template writes\n")
    said = "tokenizer.json lacks '<new1>', which the checkpoint's chat template writes: other files"
    for conversation in (CHECKPOINT_ANYWAY, resolve_template("chatml", Path())):
        assert any(note.startswith(said) for note in settle(checkpoint, conversation)[1])


def test_a_system_prompt(tmp_path: Path) -> None:
    found, notes = settle(Checkpoint(tmp_path / "a", CHATML), CHECKPOINT, "Be brief.")
    assert (found["system_message"], notes) == ("Be brief.", [])
    assert render_prompt(found, [("user", "x")]).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nx"
    )
    refusing = Checkpoint(tmp_path / "b", NO_SYSTEM)
    assert settle(refusing, CHECKPOINT)[1] == [
        "the checkpoint's chat template takes no system message: System role not supported"
    ]
    with pytest.raises(InputError, match="takes no system message") as caught:
        settle(refusing, CHECKPOINT, "Be brief.")
    assert caught.value.fix == "remove system-prompt"


@pytest.mark.skipif(shutil.which("node") is None or node_modules(WEB_LLM) is None, reason="needs Node.js and WebLLM")
def test_the_parts_of_a_prompt_are_web_llms(tmp_path: Path) -> None:
    cases, expected = [], []
    for number, (template, _) in enumerate(CONVENTIONS.values()):
        fields = dict(derived(tmp_path / str(number), template)[0].fields)
        for talk in TALKS:
            system = talk[0][1] if talk[0][0] == "system" else None
            turns = [*talk[system is not None :], ("assistant", None)]
            cases.append({"template": fields, "system": system, "turns": turns})
            expected.append(prompt_parts(fields, turns, system))
    place = node_modules(WEB_LLM)
    assert place is not None
    task = json.dumps({"package": str(place / WEB_LLM / "lib" / "index.js"), "cases": cases})
    driver = REPOSITORY / "tests" / "drivers" / "web_llm_prompts.mjs"
    done = subprocess.run(["node", str(driver)], input=task, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == expected
