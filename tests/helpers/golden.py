"""Golden texts: what people see, kept in files beside the tests.  LLMBUILD_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path


def check(path: Path, text: str) -> None:
    """Compare a text with its file.  Escape characters are written as ␛, so that colours can be read in a diff."""
    text = text.replace("\x1b", "␛")
    if os.environ.get("LLMBUILD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path.name} is different; LLMBUILD_UPDATE_GOLDEN=1 writes it"
