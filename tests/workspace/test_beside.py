"""What `llmbuild init` leaves beside a manifest: lines of .gitignore, and the schema that its first line names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.errors import UsageError
from llmbuild.manifest.json_schema import json_schema
from llmbuild.workspace.beside import DIRECTIVE, add_to_ignore

WANTED = ("dist/", ".llmbuild/")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "dist/\n.llmbuild/\n"),
        ("", "dist/\n.llmbuild/\n"),
        ("*.pyc\n", "*.pyc\ndist/\n.llmbuild/\n"),
        ("*.pyc", "*.pyc\ndist/\n.llmbuild/\n"),
        ("/dist\n", "/dist\n.llmbuild/\n"),
        (".llmbuild\r\na\r\n", ".llmbuild\r\na\r\ndist/\r\n"),
        ("  dist/\n.llmbuild/\n", "  dist/\n.llmbuild/\n"),
        ("caf\udce9/\n", "caf\udce9/\ndist/\n.llmbuild/\n"),
    ],
)
def test_gitignore_gets_what_is_missing_and_keeps_the_rest(tmp_path: Path, before: str | None, after: str) -> None:
    path = tmp_path / ".gitignore"
    if before is not None:
        path.write_bytes(before.encode("utf-8", "surrogateescape"))
        path.chmod(0o600)
    added = add_to_ignore(tmp_path, WANTED)
    assert path.read_bytes() == after.encode("utf-8", "surrogateescape")
    assert before is None or path.stat().st_mode & 0o777 == 0o600
    assert add_to_ignore(tmp_path, WANTED) == () and set(added) <= set(WANTED)
    assert path.read_bytes() == after.encode("utf-8", "surrogateescape")


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("mine\n")
    (tmp_path / ".gitignore").symlink_to("profile")
    with pytest.raises(UsageError, match="symbolic link"):
        add_to_ignore(tmp_path, WANTED)
    assert (tmp_path / "profile").read_text() == "mine\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    assert main(["init", "smollm2_135m"]) == 0
    return tmp_path


def test_the_manifests_first_line_names_the_schema_where_an_editor_finds_it(project: Path) -> None:
    first = (project / "buildfile.toml").read_text().splitlines()[0]
    assert first == DIRECTIVE
    schema = project / first.removeprefix("#:schema ")
    assert json.loads(schema.read_text()) == json_schema()
    assert (project / ".gitignore").read_text() == "dist/\n.llmbuild/\n"


def test_a_command_writes_it_again_in_a_clone_and_after_an_upgrade(project: Path) -> None:
    schema = project / ".llmbuild" / "schema.json"
    for text in (None, '{"$comment": "made by llmbuild 0.0.1"}', "{"):
        schema.unlink()
        if text is not None:
            schema.write_text(text)
        # Only a manifest that is read anew has it looked for.
        (project / "buildfile.toml").write_text((project / "buildfile.toml").read_text() + "\n")
        assert main(["plan"]) == 0
        assert json.loads(schema.read_text()) == json_schema()
    schema.unlink()
    (project / "buildfile.toml").write_text((project / "buildfile.toml").read_text().replace(DIRECTIVE, "# mine"))
    assert main(["plan"]) == 0
    assert not schema.exists()


def test_the_schema_command_writes_a_file_and_replaces_none_but_its_own(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", "-o", "schema.json"]) == main(["schema", "-o", "schema.json"]) == 0
    assert json.loads(Path("schema.json").read_text()) == json_schema()
    Path("notes.json").write_text("{}")
    assert main(["schema", "-o", "notes.json"]) == 2
    assert "the file is not a schema of the manifest" in capsys.readouterr().err
