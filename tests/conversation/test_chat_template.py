"""Where a checkpoint's chat template is, and the special tokens that it is rendered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.chat_template import read_chat_template
from llmbuild.errors import InputError
from tests.helpers.chat_templates import Checkpoint


def text_of(directory: Path) -> str | None:
    config = directory / "tokenizer_config.json"
    found = read_chat_template(directory, config.read_bytes() if config.is_file() else None)
    return None if found is None else found.text


def test_the_order_of_the_files(tmp_path: Path) -> None:
    assert text_of(tmp_path) is None
    (tmp_path / "chat_template.json").write_text('{"chat_template": "processor"}')
    assert text_of(tmp_path) == "processor"
    Checkpoint(tmp_path, "config")
    assert text_of(tmp_path) == "config"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert text_of(tmp_path) == "file"
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == "file"


def test_the_default_of_several(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    checkpoint = Checkpoint(tmp_path, "", chat_template=named)
    assert text_of(checkpoint.directory) == "y"
    Checkpoint(tmp_path, "", chat_template=named[:1])
    with pytest.raises(InputError, match='none of the chat templates is called "default"'):
        text_of(tmp_path)


def test_named_templates_as_an_object(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "", chat_template={"tool_use": "x", "default": "y"})
    assert text_of(checkpoint.directory) == "y"
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path).get_chat_template() == "y"


@pytest.mark.parametrize("value", [7, {"a": "b"}, [{"name": "default", "template": 3}], [3]])
def test_a_value_that_is_no_template(tmp_path: Path, value: Any) -> None:
    Checkpoint(tmp_path, "", chat_template=value)
    with pytest.raises(InputError, match="chat template"):
        text_of(tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="the chat template is not UTF-8 text"):
        text_of(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"bos_token": None, "eos_token": {"content": "</s>", "__type": "AddedToken", "lstrip": False}},
        {"tokenizer_class": "LlamaTokenizer", "bos_token": None},
        {"pad_token": "<pad>", "additional_special_tokens": ["<a>"]},
    ],
)
@pytest.mark.parametrize("old", [None, {"eos_token": "<pad>", "pad_token": {"content": "<s>", "lstrip": False}}])
def test_the_special_tokens_are_transformers(tmp_path: Path, config: dict[str, Any], old: Any) -> None:
    from transformers import AutoTokenizer

    checkpoint = Checkpoint(tmp_path, "x", **config)
    if old is not None:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(old))
    found = read_chat_template(checkpoint.directory, (tmp_path / "tokenizer_config.json").read_bytes())
    assert found is not None
    if "tokenizer_class" in config:
        # The class reads other files as well, which a small checkpoint lacks.
        assert {"unk_token": "<unk>", "eos_token": "</s>" if old is None else "<pad>"}.items() <= found.tokens.items()
        assert "bos_token" not in found.tokens
        return
    assert found.tokens == AutoTokenizer.from_pretrained(tmp_path).special_tokens_map
