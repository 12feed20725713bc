"""`chat` and `run` where nothing is built that runs on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from llmbuild.cli.build_here import select_or_build
from llmbuild.cli.main import main
from llmbuild.errors import UsageError
from llmbuild.workspace.host_build import with_host
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project

HOST = f"{platform.machine()}-linux-cpu"
WEB = TINY_MANIFEST.replace("x86_64-linux-cpu", "wasm32-webgpu")
HERE = TINY_MANIFEST.replace("x86_64-linux-cpu", HOST)

INLINE = 'models = ["tiny"], quantizations = ["q4f32_1"], platforms = ["wasm32-webgpu"]'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = make_project(tmp_path, WEB, cached_checkpoint("llama-gqa"))
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    return project.root


def arguments(**given: Any) -> argparse.Namespace:
    usual = dict.fromkeys(("model", "file", "quantization", "platform", "library", "weights", "threads"))
    return argparse.Namespace(**{**usual, "build": False, **given})


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The cells that were built: instead of compiling, the files are made."""
    found: list[tuple[str, ...]] = []

    def build(self: Workspace, **_: object) -> None:
        for cell in self._project.matrix:
            found.append((cell.model, cell.scheme, cell.platform))
            library = Path(self.whole.root) / cell.library
            library.parent.mkdir(parents=True, exist_ok=True)
            library.touch()
            (Path(self.whole.root) / cell.weights).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(Workspace, "build", build)
    return found


@pytest.mark.parametrize(
    ("manifest", "why", "command"),
    [
        (WEB, "\n  why: the manifest builds it for other platforms only", "llmbuild {word} -q q4f32_1 --build"),
        (HERE, "", f"llmbuild build -m tiny -q q4f32_1 -p {HOST}"),
    ],
    ids=["other platforms", "this one"],
)
def test_without_a_terminal_the_command_is_named(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    manifest: str,
    why: str,
    command: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (root / "buildfile.toml").write_text(manifest)
    for word in ("chat", "run"):
        assert main([word, "--prompt", "hello"]) == 2
        assert capsys.readouterr().err == (
            f"error: tiny in q4f32_1 is not built for this machine{why}\n"
            f"  fix: run `{command.format(word='chat tiny')}`\n"
        )


def test_build_adds_this_machine_and_leaves_the_manifest(root: Path, builds: list[tuple[str, ...]]) -> None:
    for _ in range(2):
        (model,) = select_or_build(arguments(build=True))
        assert model.library == root / "dist/libs/tiny-q4f32_1-host.so"
        assert model.weights == root / "dist/tiny-q4f32_1-MLC"
    assert builds == [("tiny", "q4f32_1", "host")], "what is there is not built again"
    assert (root / "buildfile.toml").read_text() == WEB
    # The files are there, so that nobody is asked.
    assert select_or_build(arguments()) == [model]


def test_a_platform_of_the_manifest_that_runs_here_is_taken(root: Path, builds: list[tuple[str, ...]]) -> None:
    (root / "buildfile.toml").write_text(
        HERE.replace(f'["{HOST}"]', f'["mine", "wasm32-webgpu"]\n[platforms.mine]\ntarget = "{HOST}"')
    )
    (model,) = select_or_build(arguments(build=True))
    assert builds == [("tiny", "q4f32_1", "mine")]
    assert model.cell is not None and model.cell.platform == "mine"


def test_the_cells_of_the_manifest_stay_known(root: Path) -> None:
    """Otherwise their results would be removed as those of tasks that are gone."""
    for text in (
        WEB,
        WEB.partition("[[build]]")[0] + '[quantizations.q4f32_1]\n[platforms.web]\ntarget = "wasm32-webgpu"\n',
        f"build = [{{ {INLINE} }}]\n{WEB.partition('[[build]]')[0]}",
    ):
        (root / "buildfile.toml").write_text(text)
        project = with_host(root / "buildfile.toml", None, None)
        assert len({cell.platform for cell in project.matrix}) == 2
        assert "host" in {cell.platform for cell in project.matrix}


def test_several_models_have_to_be_named(root: Path, builds: list[tuple[str, ...]]) -> None:
    text = WEB.replace("[metadata]", '[models.two]\nsource = "checkpoint"\nconv-template = "chatml"\n[metadata]')
    (root / "buildfile.toml").write_text(text.replace('["tiny"]', '["tiny", "two"]'))
    with pytest.raises(UsageError, match="several models") as error:
        select_or_build(arguments(build=True))
    assert error.value.why == "[tiny, q4f32_1], [two, q4f32_1]"
    select_or_build(arguments(build=True, model="two"))
    assert builds == [("two", "q4f32_1", "host")]


def test_a_preset_has_nothing_to_chat_with(root: Path) -> None:
    (root / "buildfile.toml").write_text(WEB.replace('source = "checkpoint"', 'preset = "llama3_2_1b"'))
    with pytest.raises(UsageError, match="nothing in the build matrix has weights"):
        select_or_build(arguments(build=True))


def test_a_manifest_that_takes_no_such_library_says_why(root: Path) -> None:
    own = WEB.replace("wasm32-webgpu", "host") + '\n[platforms.host]\ntarget = "wasm32-webgpu"\n'
    (root / "buildfile.toml").write_text(own)
    with pytest.raises(UsageError, match="takes no library for this machine") as error:
        select_or_build(arguments(build=True))
    assert error.value.why == "tiny, q4f32_1, host is already built by the [[build]] table in line 12"
    assert error.value.fix == 'add "host" to the platforms of a build'


@pytest.mark.parametrize(("answer", "refused"), [("n", True), ("", False)])
def test_on_a_terminal_it_asks(root: Path, answer: str, refused: bool) -> None:
    # Offline a checkpoint that is gone ends the build that was agreed to before anything is compiled.
    (root / "checkpoint/model.safetensors").unlink()
    child = pexpect.spawn(
        sys.executable, ["-m", "llmbuild", "run", "tiny", "--prompt", "hello"],
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        encoding="utf-8", timeout=120, dimensions=(24, 80),
    )  # fmt: skip
    child.expect_exact("note: tiny in q4f32_1 is not built for this machine\r\nBuild it for this machine now? [Y/n] ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert ("other platforms only" in child.before) is refused
    assert ("model.safetensors" in child.before or "safetensors" in child.before) is not refused
    assert child.exitstatus == (2 if refused else 3)


@pytest.mark.full
def test_a_real_answer(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "buildfile.toml").write_text(WEB.replace("= 64", "= 256").replace("= 32", "= 128"))
    assert main(["run", "--build", "--prompt", "hello", "--max-tokens", "3", "--temperature", "0"]) == 0
    out, err = capfd.readouterr()
    assert out.strip()
    assert "dist/libs/tiny-q4f32_1-host.so" in err
    # The lock is that of the manifest, which does not have this platform.
    assert "x86_64" not in (root / "llmbuild.lock").read_text()
