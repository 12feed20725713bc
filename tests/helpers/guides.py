"""The documents in docs/guides/, whose manifests, programs and commands tests take as they stand."""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).parent.parent.parent / "docs" / "guides"


def blocks(guide: str, language: str) -> list[str]:
    """The fenced blocks of a guide in a language: "toml", "sh", "cpp", "json"."""
    text = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
