"""Chat templates for tests: a tokenizer with the tokens that one names, and what transformers makes of a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmbuild.conversation.chat_template import ChatTemplate
from llmbuild.conversation.probes import Encoder
from llmbuild.errors import Where
from tests.helpers.checkpoints import tokenizer_of

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TRIMMED = CHATML.replace("m['content']", "m['content'] | trim")

_TOKENS = re.compile(
    r"<\|[^|<>]{1,40}\|>|</?[a-z]+_of_[a-z]+>|\[/?g?[A-Z_]+\]|<\|?[a-z]+\|?>|<｜[^｜]+｜>|<[A-Z_]+>", re.ASCII
)
_PLAIN = {
    "<think>",
    "</think>",
    "<tools>",
    "<tool_call>",
    "<function>",
    "<parameter>",
    "<name>",
    "<pad>",
    "<s>",
    "</s>",
}


class Checkpoint:
    """A directory with the tokenizer's files of a chat template, as transformers loads it."""

    def __init__(self, directory: Path, template: str, kind: str = "byte-level", **config: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        special = ["<pad>", "<s>", "</s>", *dict.fromkeys(t for t in _TOKENS.findall(template) if t not in _PLAIN)]
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer_of(special, kind)))
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        (directory / "tokenizer_config.json").write_text(json.dumps({**named, "chat_template": template, **config}))
        self.directory, self.template = directory, template

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}

    @property
    def found(self) -> ChatTemplate:
        tokens = {"bos_token": "<s>", "eos_token": "</s>"}
        return ChatTemplate(self.template, Where("tokenizer_config.json", key="chat_template"), tokens)

    @property
    def encoder(self) -> Encoder:
        return Encoder((self.directory / "tokenizer.json").read_bytes())

    def ids(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """What `apply_chat_template` makes of (role, text) pairs whose answer is due."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.directory)
        chat = [{"role": role, "content": text} for role, text in messages]
        found: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        return found
