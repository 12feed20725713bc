"""The recipe for a kind of package in docs/how-to-add.md, followed: one file is dropped in, and a manifest can name it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from llmbuild.packages.folder import Folder
from llmbuild.packages.kind import InputFile, Library, Member, Package, Platform
from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.helpers.imports import PACKAGE


def test_the_kind_is_known_and_writes_its_folder(tmp_path: Path) -> None:
    page = (PACKAGE.parent / "docs/how-to-add.md").read_text(encoding="utf-8")
    section = page.split("\n## A kind of package\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    place = tmp_path / "python"
    shutil.copytree(PACKAGE, place / "llmbuild", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "targets", place / "targets")
    (place / "llmbuild/packages/kinds/bare.py").write_text(code, encoding="utf-8")
    make_checkpoint(tmp_path / "checkpoint", "llama")
    project = make_project(tmp_path, TINY_MANIFEST + "[package.bare]\n", tmp_path / "checkpoint")
    planned = project.run("plan", "package", "--json", env={"PYTHONPATH": str(place)})
    assert planned.code == 0, planned.text
    assert "package[bare]" in [task["task"] for task in json.loads(planned.out)["tasks"]]

    module: dict[str, object] = {"__name__": "bare"}
    exec(code, module)
    passed: list[tuple[str, str, str]] = []
    library = Library(Platform("x", "so", "", "llvm"), InputFile("link", "lib.so", tmp_path, "a" * 64, 1), {})
    out = Folder(tmp_path / "out", lambda *names: passed.append(names))
    module["KIND"].write(Package({}, [Member("m", "q0f32", {}, {}, [library])]), out)  # type: ignore[attr-defined]
    assert passed == [("link", "lib.so", "m-q0f32-MLC.so")]
    assert json.loads((tmp_path / "out/list.json").read_text()) == [{"name": "m-q0f32-MLC.so", "sha256": "a" * 64}]
