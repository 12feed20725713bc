"""A SentencePiece model (tokenizer.model), read from its protobuf form without the library.

Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.  Numbers, flags and texts of other
fields are stepped over.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from llmbuild.checkpoints.piece_types import PieceType
from llmbuild.errors import InputError

MOST_PIECES = 1_000_000
"""The largest published vocabularies have a quarter of them."""

FILE = "tokenizer.model"

_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # Fields of ModelProto.


class ModelType(IntEnum):
    """TrainerSpec.ModelType."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What of a model decides how text is cut; the defaults are those of the format.

    A piece has its text, with U+2581 for spaces, its score, and a number of `PieceType`; its place is its id.
    """

    texts: list[str]
    scores: array[float]
    types: bytearray
    model_type: int = ModelType.UNIGRAM
    byte_fallback: bool = False
    suffix_spaces: bool = False
    bos_id: int = 1
    eos_id: int = 2
    charsmap: bytes = b""
    dummy_prefix: bool = True
    fewer_spaces: bool = True
    escapes_spaces: bool = True


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """The model in the bytes of tokenizer.model; raises InputError when it is damaged or of another format."""
    if _TIKTOKEN.match(data):
        raise InputError(
            "is a vocabulary of tiktoken and not a SentencePiece model",
            where=FILE,
            why="it does not say how text is cut before its tokens are put together",
            fix="put the tokenizer.json of the same model beside it",
        )
    trainer: list[bytes] = []
    normalizer: list[bytes] = []
    texts: list[str] = []
    scores, types = array("f"), bytearray()
    try:
        for number, message in _fields(data):
            if not isinstance(message, bytes):
                continue
            if number == _PIECES:
                if len(texts) == MOST_PIECES:
                    raise ValueError(f"it has more than {MOST_PIECES} pieces")
                text, score, kind = _piece(message)
                texts.append(text)
                scores.append(score)
                types.append(kind)
            elif number == _TRAINER:
                trainer.append(message)
            elif number == _NORMALIZER:
                normalizer.append(message)
        training, normal = dict(_fields(b"".join(trainer))), dict(_fields(b"".join(normalizer)))
        charsmap = normal.get(2, b"")
        if not isinstance(charsmap, bytes):
            raise ValueError("its table of normalization is not one")
        if charsmap:
            _check_charsmap(charsmap)
    except ValueError as error:
        raise InputError("not a SentencePiece model", where=FILE, why=str(error)) from error
    if not texts:
        raise InputError("not a SentencePiece model", where=FILE, why="it has no pieces")
    return SentencePieceModel(
        texts,
        scores,
        types,
        model_type=_number(training.get(3), ModelType.UNIGRAM),
        byte_fallback=bool(_number(training.get(35), 0)),
        suffix_spaces=bool(_number(training.get(24), 0)),
        bos_id=_number(training.get(41), 1),
        eos_id=_number(training.get(42), 2),
        charsmap=charsmap,
        dummy_prefix=bool(_number(normal.get(3), 1)),
        fewer_spaces=bool(_number(normal.get(4), 1)),
        escapes_spaces=bool(_number(normal.get(5), 1)),
    )


def _piece(message: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, int(PieceType.NORMAL)
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            text = value.decode()
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not math.isfinite(score):
        raise ValueError("a piece's score is not a number")
    if not PieceType.NORMAL <= kind <= PieceType.BYTE:
        raise ValueError(f"a piece has the unknown type {kind}")
    return text, score, kind


def _check_charsmap(data: bytes) -> None:
    """Raise ValueError for a table of normalization (a double-array trie, then the texts) that leads out of itself.

    Its readers follow it without looking.
    """
    size = int.from_bytes(data[:4], "little")
    units = array("I", data[4 : 4 + size]) if size % 1024 == 0 and 0 < size <= len(data) - 4 else array("I")
    if units and sys.byteorder == "big":
        units.byteswap()
    texts = data[4 + size :]
    starts = {at for at in range(len(texts) + 1) if at == len(texts) or texts[at] & 0xC0 != 0x80}
    texts.decode()
    if units and all(_inside(at, unit, units, starts) for at, unit in enumerate(units)):
        return
    raise ValueError("its table of normalization is damaged")


def _inside(at: int, unit: int, units: array[int], starts: set[int]) -> bool:
    """Whether what a unit of the trie leads to is there: a text for a leaf, else 256 places for the next byte."""
    if unit >> 31:
        return unit & 0x7FFFFFFF in starts
    next_at = at ^ (unit >> 10) << ((unit & 0x200) >> 6)
    ends_here = unit >> 8 & 1
    return next_at | 0xFF < len(units) and (not ends_here or units[next_at] >> 31 == 1)


def _number(value: bytes | int | None, default: int) -> int:
    """An int32 as protobuf writes it: a negative one has 64 bits."""
    if not isinstance(value, int):
        return default
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message: number and value (bytes where length-delimited or fixed, an integer otherwise)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field at byte {at} is larger than the file")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"a number at byte {at} does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
