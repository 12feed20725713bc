"""The formats in which the families' published models were tuned, written down as chat templates of our own: each is derived."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from llmbuild.conversation.own_template import derive_template
from tests.conversation.test_own_template import TALKS, same_ids
from tests.helpers.chat_templates import Checkpoint


@dataclass(frozen=True)
class Format:
    """What stands before and after the text of each role; `system` is None where system messages are refused.  `header` leads to
    an answer where that is not what stands before those that are there."""

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str] | None = None
    begin: str = ""
    header: str | None = None
    system_default: str | None = None

    def template(self) -> str:
        """As Jinja."""
        parts = [said(self.begin), "{% set turns = messages %}{% if messages[0].role == 'system' %}"]
        if self.system is None:
            parts.append("{{ raise_exception('no system message') }}{% endif %}")
        else:
            before, after = map(said, self.system)
            parts.append(f"{before}{{{{ messages[0].content }}}}{after}{{% set turns = messages[1:] %}}")
            if self.system_default is not None:
                parts.append(f"{{% else %}}{before}{said(self.system_default)}{after}")
            parts.append("{% endif %}")
        (ask, asked), (answer, answered) = (map(said, pair) for pair in (self.user, self.assistant))
        parts += [
            "{% for m in turns %}{% if m.role == 'user' %}",
            f"{ask}{{{{ m.content }}}}{asked}{{% else %}}{answer}{{{{ m.content }}}}{answered}{{% endif %}}{{% endfor %}}",
            f"{{% if add_generation_prompt %}}{said(self.header or self.assistant[0])}{{% endif %}}",
        ]
        return "".join(parts)


def said(text: str) -> str:
    return "{{ '" + text.replace("\n", "\\n") + "' }}" if text else ""


def chatml(**more: str | None) -> Format:
    end = "<|im_end|>\n"
    turns = [("<|im_start|>" + role + "\n", end) for role in ("user", "assistant", "system")]
    return Format(*turns, **more)  # type: ignore[arg-type]


TULU = ("<|user|>\n", "\n"), ("<|assistant|>\n", "<|endoftext|>\n"), ("<|system|>\n", "\n")
PHI = ("<|user|>\n", "<|end|>\n"), ("<|assistant|>\n", "<|end|>\n"), ("<|system|>\n", "<|end|>\n")
ZEPHYR = ("<|user|>\n", "<|endoftext|>\n"), ("<|assistant|>\n", "<|endoftext|>\n"), ("<|system|>\n", "<|endoftext|>\n")

FORMATS = {
    "gemma, gemma 2, 3": Format(
        ("<start_of_turn>user\n", "<end_of_turn>\n"), ("<start_of_turn>model\n", "<end_of_turn>\n"), begin="<bos>"
    ),
    "phi 3": Format(*PHI),
    "phi 4 mini": Format(*[(before.rstrip(), after.rstrip()) for before, after in PHI]),
    "stablelm 2 zephyr": Format(*ZEPHYR),
    "stablelm 2 12b": chatml(),
    "granite 3": Format(
        *(
            ("<|start_of_role|>" + role + "<|end_of_role|>", "<|end_of_text|>\n")
            for role in ("user", "assistant", "system")
        ),
        system_default="You are Granite.",
    ),
    "olmo": Format(TULU[0], TULU[1], begin="<|endoftext|>"),
    "olmo 2": Format(*TULU, begin="<|endoftext|>"),
    "olmo 3": chatml(system_default="You are a helpful assistant."),
    "smollm 3": chatml(header="<|im_start|>assistant\n<think>\n\n</think>\n"),
    "ministral 3": Format(
        ("[INST]", "[/INST]"), ("", "</s>"), ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), begin="<s>", header=""
    ),
    "cohere": Format(
        *(
            ("<|START_OF_TURN_TOKEN|><|" + role + "_TOKEN|>", "<|END_OF_TURN_TOKEN|>")
            for role in ("USER", "CHATBOT", "SYSTEM")
        ),
        begin="<BOS_TOKEN>",
    ),
    "internlm 2": chatml(begin="<s>"),
    "internlm": Format(("<|User|>:", "\n"), ("<|Bot|>:", "<eoa>\n"), begin="<s>"),
    "orion": Format(("Human: ", "\n\n"), ("Assistant: </s>", "</s>"), begin="<s>"),
    "qwen": chatml(system_default="You are a helpful assistant."),
    "baichuan 2": Format(("<reserved_106>", ""), ("<reserved_107>", ""), ("", "")),
    "minicpm": Format(("<用户>", ""), ("<AI>", ""), begin="<s>"),
    "nemotron mini": Format(
        ("<extra_id_1>User\n", "\n"), ("<extra_id_1>Assistant\n", "\n"), ("<extra_id_0>System\n", "\n\n")
    ),
    "glm 4": Format(("<|user|>\n", ""), ("<|assistant|>\n", ""), ("<|system|>\n", ""), begin="[gMASK]<sop>"),
    "chatglm 3": Format(
        ("<|user|>\n ", ""),
        ("<|assistant|>\n ", ""),
        ("<|system|>\n ", ""),
        begin="[gMASK]<sop>",
        header="<|assistant|>",
    ),
    "exaone 4": Format(
        ("[|user|]\n", "\n"), ("[|assistant|]\n", "[|endofturn|]\n"), ("[|system|]\n", "[|endofturn|]\n")
    ),
    "ernie 4.5": Format(
        ("User: ", "\n"), ("Assistant: ", "<|end_of_sentence|>"), ("", "\n"), begin="<|begin_of_sentence|>"
    ),
    "hunyuan": Format(
        ("<｜hy_User｜>", ""),
        ("<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁2｜>"),
        ("", "<｜hy_place▁holder▁no▁3｜>"),
        begin="<｜hy_begin▁of▁sentence｜>",
    ),
    "seed oss": Format(*(("<seed:bos>" + role + "\n", "<seed:eos>") for role in ("user", "assistant", "system"))),
    "arcee": chatml(begin="<|begin_of_text|>"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_familys_format_is_derived(name: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, FORMATS[name].template())
    derived = derive_template(checkpoint.found, checkpoint.encoder)
    assert derived.wrong == ()
    assert (derived.no_system is None) == (FORMATS[name].system is not None)
    for talk in TALKS:
        if derived.no_system is None or talk[0][0] != "system":
            same_ids(derived.fields, checkpoint, talk)
