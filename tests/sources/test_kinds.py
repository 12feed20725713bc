"""Kinds of sources are found by their files, imported when they are named, and told apart nowhere else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.sources.kinds import known_kind, source_kind, source_kinds
from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.cli import make_project
from tests.helpers.imports import PACKAGE

KINDS = PACKAGE / "sources" / "kinds"
NAMES = {path.stem for path in KINDS.glob("*.py")} - {"__init__"}


def test_every_file_is_a_kind() -> None:
    assert {kind.name for kind in source_kinds()} == NAMES
    assert [kind.name for kind in source_kinds()][:2] == ["path", "gguf"]
    schemes = [scheme for kind in source_kinds() for scheme in kind.schemes]
    assert len(schemes) == len(set(schemes))


@pytest.mark.parametrize(
    "name", ["", "HF", "ftp", "__init__", "_x", "hf.x", "..kind", "x/../hf", "hf\0", "\udc80", None, 5, []]
)
def test_what_is_no_kind(name: object) -> None:
    assert known_kind(name) is None


def test_a_name_that_must_be_right() -> None:
    with pytest.raises(KeyError):
        source_kind("ftp")


WATCHED = """
import sys
from llmbuild.cli.main import main
code = main(["plan"])
names = sorted(name.rpartition(".")[2] for name in sys.modules if name.startswith("llmbuild.sources.kinds."))
print("imported:", code, names, sorted({"pydantic", "ssl", "urllib.request", "huggingface_hub"} & set(sys.modules)))
"""


def test_a_plan_imports_the_kinds_that_the_manifest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path, checkpoint=make_checkpoint(tmp_path / "checkpoint", "llama"))
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    lines = [
        subprocess.run(
            [sys.executable, "-c", WATCHED], cwd=project.root, capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for _ in range(2)
    ]
    assert lines[1] == "imported: 0 ['path'] []"


def test_no_other_module_tells_kinds_apart() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent != KINDS
        for line in kinds_told_apart(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'if source.kind == "hf": pass',
        'if "path" != fetch.source.kind: pass',
        'if kind in ("path", "gguf"): pass',
        'if source["kind"] not in {"pypi"}: pass',
        'match source.get("kind"):\n    case "x" | "https": pass',
        'table = {"path": 1, "gguf": 2}[source.kind]',
    ],
)
def test_such_places_are_seen(code: str) -> None:
    assert list(kinds_told_apart(ast.parse(code))) != []


def kinds_told_apart(tree: ast.Module) -> Iterator[int]:
    """The lines that compare something called a kind with the name of a kind of source, or look it up in a table of them."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left, _, others):
                sides = [left, *others]
            case ast.Match(subject, cases):
                sides = [subject, *(case.pattern for case in cases)]
            case ast.Subscript(ast.Dict() as table, key):
                sides = [key, *(name for name in table.keys if name is not None)]
            case _:
                continue
        named = {one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)} & NAMES
        words = [ast.unparse(side).rstrip("'\")]") for side in sides if isinstance(side, ast.expr)]
        if named and any(word.endswith("kind") for word in words):
            yield node.lineno
