"""The recipe for a destination kind in docs/how-to-add.md, followed: one file is dropped in, and publishes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from llmbuild.errors import UsageError
from llmbuild.publishing import kinds
from llmbuild.publishing.kind import CHECKSUMS, Facts, File, Publication, Wishes

ROOT = Path(__file__).parents[2]


def test_a_file_in_the_folder_is_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/how-to-add.md").read_text(encoding="utf-8")
    section = page.split("\n## A destination of `publish`\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds/folder.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "kinds")])
    assert "folder" in kinds.kind_names()
    place = tmp_path / "offered"
    kind, rest = kinds.split(f"folder:{place}")
    kind.check(rest)
    with pytest.raises(UsageError, match="not a whole path"):
        kind.check("offered")

    large = b"w" * (1 << 20) + b"x"
    made = [File.of_bytes("README.md", "card", b"# m"), File.of_bytes("libs/m.so", "library", large)]
    publication = Publication.of(made, Facts("m"))
    destination = kind.open(rest, Wishes(), tmp_path / "state")
    counted: list[int] = []
    difference = destination.compare(publication)
    assert (difference.new, difference.reference) == (("README.md", CHECKSUMS, "libs/m.so"), None)
    destination.require_login()
    reference = destination.send(publication, difference, counted.append)
    assert sum(counted) == difference.size == sum(file.size for file in publication.files)
    assert (place / "libs/m.so").read_bytes() == large
    sums = (place / CHECKSUMS).read_bytes()
    assert reference == f"folder:{place}#{hashlib.sha256(sums).hexdigest()}"

    (place / "README.md").write_text("edited")
    assert destination.compare(publication).changed == ("README.md",)
    assert destination.send(publication, destination.compare(publication), counted.append) == reference
    assert destination.compare(publication).empty
