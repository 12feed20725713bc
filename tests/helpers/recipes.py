"""Follow the recipes of docs/how-to-add.md, as they stand there, in a copy of llmbuild."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.helpers.imports import PACKAGE

PAGE = PACKAGE.parent / "docs" / "how-to-add.md"


def section(title: str) -> str:
    """The text of one recipe."""
    return PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def copy_of_llmbuild(place: Path) -> None:
    """What a checkout has that runs: the package and the targets."""
    shutil.copytree(PACKAGE, place / "llmbuild", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "targets", place / "targets")


def follow(title: str, place: Path, project: Path | None = None) -> list[str]:
    """Do what a recipe says in the copy at `place`; returns the files that it made or changed.

    A block whose first line is a comment with a path is that file (one of `targets/` belongs to the project), and a diff
    replaces lines that stand once in its file.
    """
    text, done = section(title), list[str]()
    for _, path, body in re.findall(r"```(python|toml)\n# (\S+)\n(.*?)```", text, re.DOTALL):
        file = (project if project is not None and path.startswith("targets/") else place) / path
        assert not file.exists(), f"{path} is there already"
        file.parent.mkdir(exist_ok=True)
        file.write_text(body, encoding="utf-8")
        done.append(path)
    for path, body in re.findall(r"```diff\n--- (\S+)\n(.*?)```", text, re.DOTALL):
        lines = body.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        before = (place / path).read_text(encoding="utf-8")
        assert before.count(old) == 1, f"{path}: {old}"
        (place / path).write_text(before.replace(old, new), encoding="utf-8")
        done.append(path)
    assert done
    return done
