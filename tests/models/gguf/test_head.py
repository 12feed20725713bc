"""The architecture that the first bytes of a GGUF file name; whatever the bytes are, nothing but a refusal comes of them."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import pytest

from llmbuild.errors import InputError
from llmbuild.models.gguf.head import check_head
from tests.helpers.gguf_files import make_gguf


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def head(*pairs: bytes, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs) if count is None else count) + b"".join(pairs)


def string(key: str, value: str) -> bytes:
    return text(key.encode()) + struct.pack("<I", 8) + text(value.encode())


NUMBER = text(b"general.quantization_version") + struct.pack("<II", 4, 2)
ARRAY = text(b"general.tags") + struct.pack("<IIQ", 9, 4, 1) + struct.pack("<I", 1)


@pytest.mark.parametrize("before", [(), (NUMBER,), (string("general.type", "model"), NUMBER)])
def test_what_is_not_supported_is_refused(before: tuple[bytes, ...]) -> None:
    with pytest.raises(InputError, match="'gemma4' is not supported"):
        check_head(head(*before, string("general.architecture", "gemma4")))
    check_head(head(*before, string("general.architecture", "qwen3")))


def test_no_gguf_file() -> None:
    with pytest.raises(InputError, match="not a GGUF file"):
        check_head(b"version https://git-lfs.github.com/spec/v1\n")


def test_what_is_not_seen_is_not_judged() -> None:
    strange = string("general.architecture", "gemma4")
    for data in (
        b"",
        b"GG",
        head(),
        head(count=1 << 60),
        head(ARRAY, strange),
        head(strange)[:-1],
        head(text(b"x" * 99)[:50]),
    ):
        check_head(data)


def test_any_bytes(tmp_path: Path) -> None:
    whole = make_gguf(tmp_path / "a.gguf", "llama").read_bytes()[:2000]
    check_head(whole)
    dice = random.Random(1)
    for _ in range(2000):
        data = bytearray(whole[: dice.randrange(len(whole))])
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        with contextlib.suppress(InputError):
            check_head(bytes(data))
