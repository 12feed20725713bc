"""Tokenizer information, against transformers where it has an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.tokenizer_info import active_vocab_size, detect_tokenizer_info
from llmbuild.errors import InputError
from tests.helpers.checkpoints import write_tokenizer


def info(**parts: Any) -> tuple[Any, ...]:
    return tuple(detect_tokenizer_info(parts).values())


STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, ("byte_fallback", False, False)),
        ({"decoder": None, "normalizer": None}, ("byte_fallback", False, False)),
        ({"decoder": {"type": "ByteLevel"}}, ("byte_level", False, False)),
        ({"decoder": {"type": "WordPiece"}}, ("byte_fallback", False, False)),
        ({"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}}, ("byte_level", False, False)),
        (
            {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, STRIP]}},
            ("byte_fallback", False, True),
        ),
        ({"decoder": STRIP}, ("byte_fallback", False, True)),
        ({"decoder": {**STRIP, "stop": 1}}, ("byte_fallback", False, False)),
        ({"decoder": {**STRIP, "content": "_"}}, ("byte_fallback", False, False)),
        ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, ("byte_fallback", True, False)),
        ({"normalizer": {"type": "Prepend", "prepend": " "}}, ("byte_fallback", False, False)),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "▁"}]}},
            ("byte_fallback", True, False),
        ),
    ],
)
def test_detection(parts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert info(**parts) == expected


def test_no_tokenizer_json_gives_the_defaults() -> None:
    assert tuple(detect_tokenizer_info(None).items()) == (
        ("token_postproc_method", "byte_fallback"),
        ("prepend_space_in_encode", False),
        ("strip_space_in_decode", False),
    )


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pad_token": "<new pad>"},
        {"mask_token": {"content": "<mask>", "lstrip": True, "__type": "AddedToken"}},
        {"extra_special_tokens": ["<one>", "<two>", "<s>"]},
        {
            "added_tokens_decoder": {
                "1": {"content": "<s>", "special": False},
                "900": {"content": "<late>", "special": True},
            }
        },
    ],
)
def test_active_vocabulary_equals_the_length_that_transformers_gives(
    tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path, kind)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert active_vocab_size(files_of(tmp_path)) == len(AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("decoder", [False, True])
def test_older_files_count_only_without_added_tokens_decoder(tmp_path: Path, decoder: bool) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path, "byte-level")
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("added_tokens_decoder", None)
    if decoder:
        config["added_tokens_decoder"] = {"1": {"content": "<s>", "special": True}}
    file.write_text(json.dumps(config))
    (tmp_path / "added_tokens.json").write_text('{"<added>": 700}')
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "<mask>"}')
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert active_vocab_size(files_of(tmp_path)) == len(AutoTokenizer.from_pretrained(tmp_path))


def tokenizer_json(**changes: Any) -> bytes:
    return json.dumps({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}, "added_tokens": [], **changes}).encode()


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"tokenizer.json": tokenizer_json()}, 2),
        ({"tokenizer.json": tokenizer_json(added_tokens=[{"content": "b"}, {"content": "c"}])}, 3),
        ({"tokenizer.json": tokenizer_json(model={"type": "Unigram", "vocab": [["x", 0.0], ["y", -1.0]]})}, 2),
    ],
)
def test_sizes(files: dict[str, bytes], size: int) -> None:
    assert active_vocab_size(files) == size


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no tokenizer"),
        ({"vocab.json": b"{}"}, "no tokenizer"),
        ({"tokenizer.json": b"{"}, "not valid JSON"),
        ({"tokenizer.json": b"[]"}, "tokenizer.json is not a JSON object"),
        ({"tokenizer.json": tokenizer_json(added_tokens=5)}, "tokenizer.json: added_tokens: must be a list"),
        ({"tokenizer.json": tokenizer_json(model={"vocab": [[["x"], 1]]})}, "has no vocabulary"),
        ({"tokenizer.json": tokenizer_json(model={"vocab": {"\ud800": 1}})}, "half of a surrogate pair"),
        ({"tokenizer.json": b'{"model": ' + b"9" * 5000 + b"}"}, "5000 digits"),
        ({"tokenizer.json": b"{}"}, "has no vocabulary"),
        ({"tokenizer.json": tokenizer_json(added_tokens=[{}])}, "has no content"),
        (
            {"tokenizer.json": tokenizer_json(added_tokens=[{"content": "<x>"}, {"content": "<x>"}])},
            '"<x>" is listed twice',
        ),
        (
            {"tokenizer.json": tokenizer_json(), "tokenizer_config.json": b"nope"},
            "tokenizer_config.json is not valid JSON",
        ),
    ],
)
def test_wrong_tokenizers(files: dict[str, bytes], said: str) -> None:
    with pytest.raises(InputError) as caught:
        active_vocab_size(files)
    assert said in str(caught.value)
