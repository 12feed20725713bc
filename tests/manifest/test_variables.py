"""`~` and `${NAME}` in the paths of a manifest: expanded where they are used, and kept as they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llmbuild
from llmbuild.cli.main import main
from llmbuild.errors import LlmbuildError, UsageError
from llmbuild.manifest.load import load
from llmbuild.manifest.lock import read_lock
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tiny").symlink_to(cached_checkpoint("llama"))
    return root


def write(source: str, template: str = "chatml") -> None:
    text = TINY_MANIFEST.replace('"checkpoint"', json.dumps(source)).replace('"chatml"', json.dumps(template))
    Path("buildfile.toml").write_text(text)


def parameters() -> dict[str, Any]:
    """What the keys of all tasks have of their own."""
    with llmbuild.open(".") as workspace:
        return {verdict.task.label: verdict.task.params for verdict in workspace.plan().verdicts}


def test_the_lock_keeps_what_is_written_and_keys_have_the_content_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = project.parent / "here"
    plans = []
    for source, name, value in (
        (f"{place}/tiny", "HOME", str(project)),
        ("~/here/tiny", "HOME", str(project.parent)),
        ("${MODELS}/tiny", "MODELS", str(place)),
        ("../${SUB}/tiny", "SUB", "here"),
    ):
        monkeypatch.setenv(name, value)
        write(source)
        assert main(["lock"]) == 0
        assert list(read_lock(Path("llmbuild.lock")).sources) == [f"path:{source}"]
        plans.append(parameters())
        if source != f"{place}/tiny":
            assert str(place) not in Path("llmbuild.lock").read_text()
    assert plans[0] and all(plan == plans[0] for plan in plans)


def test_a_changed_variable_is_seen_by_a_manifest_that_is_cached(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELS", str(project.parent / "here"))
    write("${MODELS}/tiny")
    assert main(["plan"]) == 0
    monkeypatch.setenv("MODELS", str(project.parent / "nowhere"))
    capsys.readouterr()
    assert main(["plan"]) == 4
    # The message has the source as the manifest has it.
    assert capsys.readouterr().err.startswith(
        "error: buildfile.toml:5: models.tiny.source: '${MODELS}/tiny' does not exist\n"
    )
    monkeypatch.delenv("MODELS")
    assert main(["plan"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: buildfile.toml:5: models.tiny.source: the variable MODELS is not set"
    )


def test_a_template_is_read_anew_where_a_variable_leads_elsewhere(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("../here/tiny", "${KIND}/template.toml")
    for kind in ("one", "two"):
        monkeypatch.setenv("KIND", kind)
        Path(kind).mkdir()
        Path(kind, "template.toml").write_text(f'name = "{kind}"\nuser_message = "x"\n')
        with pytest.raises(LlmbuildError) as caught:
            load(Path("buildfile.toml"))
        assert f"{kind}/template.toml" in str(caught.value)
    monkeypatch.delenv("KIND")
    with pytest.raises(UsageError, match="the variable KIND is not set"):
        load(Path("buildfile.toml"))


@pytest.mark.parametrize("source", ["hf:org/${NAME}", "https://example.org/${TOKEN}/a.gguf", "pypi:a==${V}/a.gguf"])
def test_what_is_fetched_has_no_variables(project: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    for name in ("NAME", "TOKEN", "V"):
        monkeypatch.setenv(name, "s3cret")
    write(source)
    with pytest.raises(UsageError, match="a variable stands only in the path") as caught:
        load(Path("buildfile.toml"))
    assert "s3cret" not in str(caught.value)


def test_an_adapter_too(project: Path) -> None:
    text = TINY_MANIFEST.replace('source = "checkpoint"', 'source = "checkpoint"\nadapter = "${GONE}/lora"')
    with pytest.raises(UsageError, match="the variable GONE is not set"):
        load(Path("buildfile.toml"), text)
