"""The platform that weights are measured on: the same for every machine of a kind, whatever a manifest builds for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.errors import MultiError, UsageError
from llmbuild.manifest import measuring
from llmbuild.manifest.load import load

MODEL = '[models.a]\nsource = "a"\nconv-template = "chatml"\n[[build]]\n'


def test_the_target_is_the_baseline_of_this_machine_with_float_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "host_target", lambda: "x86_64-linux-cpu")
    platform, files = measuring.measuring_platform()
    assert platform is not None
    host = platform.compile["host"]
    assert isinstance(host, dict)
    assert (host["mcpu"], platform.activations, platform.artifact) == ("x86-64-v3", "float", "so")
    assert [file.name for file in files] == ["x86_64-linux-cpu.toml", "_x86_64-linux.toml"]


def test_a_machine_of_which_llmbuild_has_no_target_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "host_target", lambda: "riscv64-linux-cpu")
    assert measuring.measuring_platform() == (None, ())


def test_a_target_of_the_projects_own_measures_nothing(tmp_path: Path) -> None:
    """What is compared among machines and projects is measured with llmbuild's own target."""
    text = f'{MODEL}quantizations = ["q4f16_1"]\nplatforms = ["x86_64-linux-cpu"]\n'
    own = tmp_path / "targets" / "x86_64-linux-cpu.toml"
    own.parent.mkdir()
    own.write_text('[target]\nextends = "x86_64-linux-cpu"\n[host]\ncpu = "x86-64-v4"\n')
    project = load(tmp_path / "buildfile.toml", text).project
    assert project.measuring == measuring.measuring_platform()[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('quantizations = ["reference"]\n[quantizations.reference]\nbase = "q4f16_1"\n', "quantization"),
        ('platforms = ["measuring"]\n[platforms.measuring]\ntarget = "x86_64-linux-cpu"\n', "platform"),
    ],
)
def test_names_that_labels_have_for_what_measures_are_taken(text: str, what: str, tmp_path: Path) -> None:
    rest = 'platforms = ["web"]\n' if what == "quantization" else 'quantizations = ["q4f16_1"]\n'
    with pytest.raises((UsageError, MultiError), match=f"cannot be the name of a {what}"):
        load(tmp_path / "buildfile.toml", MODEL + rest + text)
