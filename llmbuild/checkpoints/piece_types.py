"""What a piece of a SentencePiece vocabulary is: `SentencePiece.Type`, and the same in GGUF's tokenizer.ggml.token_type."""

from __future__ import annotations

from enum import IntEnum


class PieceType(IntEnum):
    """The numbers of both formats."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6
