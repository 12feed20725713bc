"""A model's tokenizer: text to token ids and back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmbuild.errors import InputError


def load_tokenizer(directory: Path) -> Any:
    """The model's tokenizer; raises InputError when there is no tokenizer.json, or none that the library reads."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            "text needs a tokenizer.json",
            where=str(directory),
            why="the checkpoint has none",
            fix="convert the checkpoint's tokenizer with transformers and save it beside the weights",
        )
    # The library's thread pool and TVM's would compete for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises no narrower class.
        raise InputError("the tokenizer cannot be read", where=str(path), why=str(error)[:200]) from error


def encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text, without tokens that the tokenizer would put around it; raises InputError for half characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "the text cannot be encoded",
            why=f"character {error.start} is half of a surrogate pair",
            fix="decode the bytes that it came from as UTF-8",
        ) from error
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def special_ids(tokenizer: Any, texts: Iterable[str]) -> set[int]:
    """The special tokens that are spelled as these texts: they never appear in an answer's text."""
    spelled = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return {spelled[text] for text in texts if text in spelled}
