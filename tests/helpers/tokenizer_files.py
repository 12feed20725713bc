"""Files of tokenizers that checkpoints have in the place of tokenizer.json: small ones, trained on a few sentences."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "a model of pieces 0 1 2 3 4 5 6 7 8 9",
    "naïve café text, Hello World! It's 12 34 日本語 日本",
] * 20
END = "<|endoftext|>"


@cache
def _sentencepiece(options: str) -> bytes:
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=out, minloglevel=2, hard_vocab_limit=False, **json.loads(options)
    )
    return out.getvalue()


def sentencepiece_model(**options: Any) -> bytes:
    """A tokenizer.model as Llama 2 has it, changed by the trainer's `options`."""
    llama = {
        "vocab_size": 400,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
    }
    return _sentencepiece(json.dumps({**llama, **options}))


@cache
def vocab_and_merges() -> tuple[bytes, bytes]:
    """A vocab.json and a merges.txt as GPT-2 has them."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXT, vocab_size=500, special_tokens=[END], show_progress=False)
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_model(place)
        return Path(place, "vocab.json").read_bytes(), Path(place, "merges.txt").read_bytes()


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def message(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that is itself a message, or a text."""
    return varint(number << 3 | 2) + varint(len(content)) + content
