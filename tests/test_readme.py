"""The README keeps its promises: length, a manifest that loads, and the very test command that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_its_manifest_is_twelve_lines_and_loads(tmp_path: Path) -> None:
    from llmbuild.manifest.load import load_project

    (manifest,) = fenced("toml")
    assert len(manifest.splitlines()) <= 12
    path = tmp_path / "buildfile.toml"
    path.write_text(manifest)
    project = load_project(path)
    assert project.matrix


def test_ci_runs_exactly_the_test_command() -> None:
    (command,) = [line for block in fenced("sh") for line in block.splitlines() if "pytest" in line]
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_the_files_it_links_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_documents_that_the_code_cites_exist() -> None:
    cited = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "llmbuild").rglob("*.py")
        for name in re.findall(r"(?<![\w/.:-])[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert cited
    assert [(path, name) for path, name in sorted(cited) if not (ROOT / name).exists()] == []
