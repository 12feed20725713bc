"""What a machine lacks is said before anything runs: tools, TVM's code generators, linkers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmbuild.canonical import Json, digest_bytes, digest_json
from llmbuild.cli.main import main
from llmbuild.cli.targets import in_full, status
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, LlmbuildError, ToolchainError
from llmbuild.manifest.load import load
from llmbuild.manifest.lock import Lock
from llmbuild.manifest.project import Project
from llmbuild.programs.parts import Parts
from llmbuild.targets.files import load_target
from llmbuild.workspace.absent import LockedTools, missing_for
from llmbuild.workspace.platform_tools import Machine, PlatformTools, find_tools
from llmbuild.workspace.targets import examine
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust
from tests.helpers import plans
from tests.helpers.checkpoints import cached_checkpoint

TRUSTED = Trust(Path("/"), everything=True)
VULKAN = "TVM has no code generator for vulkan"


class Names:
    """Digests by name alone: TVM's libraries need not be read for it."""

    def digest(self, path: Path) -> str:
        return digest_bytes(path.name.encode())


def tvm_of(place: Path, monkeypatch: pytest.MonkeyPatch, *kinds: str) -> Path:
    """A TVM whose library registers code generators, as its bytes show them."""
    place.mkdir()
    names = b"\0".join(f"target.build.{kind}".encode() for kind in kinds)
    (place / "libtvm_compiler.so").write_bytes(b"\x7fELF\0" + names + b"\0target.build.\0")
    (place / "empty.so").write_bytes(b"")
    monkeypatch.setattr(Toolchain, "_places", lambda self, package: [place])
    return place


def test_the_code_generators_are_read_from_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tvm_of(tmp_path / "tvm", monkeypatch, "llvm", "vulkan")
    assert Toolchain(Names()).code_generators() == {"llvm", "vulkan"}


def test_the_installed_tvm_is_told_as_it_tells_itself() -> None:
    tvm_ffi = pytest.importorskip("tvm_ffi")
    pytest.importorskip("tvm")
    registered = tvm_ffi.registry.list_global_func_names()
    kinds = {name.removeprefix("target.build.") for name in registered if name.startswith("target.build.")}
    assert Toolchain(Names()).code_generators() == kinds


def test_what_was_found_is_remembered_for_the_same_tvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = tmp_path / "memo.json"
    place = tvm_of(tmp_path / "tvm", monkeypatch, "llvm", "metal")
    assert Toolchain(Names(), memo=memo).code_generators() == {"llvm", "metal"}
    (place / "libtvm_compiler.so").write_bytes(b"target.build.cuda\0")
    # The digest (of the name, here) is the same, so the libraries are not searched again.
    assert Toolchain(Names(), memo=memo).code_generators() == {"llvm", "metal"}
    (place / "libtvm_runtime.so").write_bytes(b"new")
    assert Toolchain(Names(), memo=memo).code_generators() == {"cuda"}
    memo.write_text("{")
    assert Toolchain(Names(), memo=memo).code_generators() == {"cuda"}


def lacking(place: Path, text: str) -> tuple[Mapping[str, str], list[LlmbuildError]]:
    model = '[models.a]\npreset = "Llama-2-7B"\n'
    project = load(place / "buildfile.toml", model + text).project
    found = tools_of(project, place)
    world = dataclasses.replace(plans.observed(project), linkers=found.linkers, lacks=found.lacks)
    return found.linkers, missing_for(plans.tasks_of(project, world))


def tools_of(project: Project, place: Path) -> PlatformTools:
    platforms = [project.platforms[name] for name in dict.fromkeys(cell.platform for cell in project.matrix)]
    locked = LockedTools(Lock(), Store(place / "store"), "project")
    return find_tools(platforms, Machine(Toolchain(Names()), TRUSTED), locked)


def test_a_missing_code_generator_is_said_once_with_its_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tvm_of(tmp_path / "tvm", monkeypatch, "llvm", "metal")
    platforms = '["x86_64-linux-vulkan", "aarch64-ios-metal", "x86_64-windows-vulkan"]'
    found, errors = lacking(tmp_path, f'[[build]]\nquantizations = ["q4f16_1"]\nplatforms = {platforms}\n')
    assert "aarch64-ios-metal" in found
    [error] = [error for error in errors if VULKAN in error.what]
    assert error.where == "platforms x86_64-linux-vulkan, x86_64-windows-vulkan"
    assert error.exit_code == ExitCode.TOOLCHAIN
    assert error.why is not None and error.why.endswith("has llvm, metal")
    assert error.fix is not None and "USE_VULKAN=ON" in error.fix


def test_the_target_works_where_tvm_has_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tvm_of(tmp_path / "tvm", monkeypatch, "llvm", "vulkan")
    found, errors = lacking(tmp_path, '[[build]]\nquantizations = ["q4f16_1"]\nplatforms = ["x86_64-linux-vulkan"]\n')
    assert (list(found), errors) == (["x86_64-linux-vulkan"], [])
    assert not examine(load_target("x86_64-linux-vulkan"), Machine(Toolchain(Names()), TRUSTED)).general


def test_a_missing_command_comes_with_what_installs_it(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.toml").write_text(
        '[target]\nextends = "aarch64-ios-metal"\n'
        '[requires]\ntools = ["sh", { command = "no-such-tool", install = "apt install no-such" }, "no-such-other"]\n'
    )
    _, errors = lacking(tmp_path, '[[build]]\nquantizations = ["q4f16_1"]\nplatforms = ["mine"]\n')
    assert [(error.what, error.fix) for error in errors] == [
        ("the command 'no-such-tool' is not on PATH", "`apt install no-such`"),
        ("the command 'no-such-other' is not on PATH", "install no-such-other, or put it on PATH"),
    ]
    assert {error.where for error in errors} == {"platform mine"}


@pytest.mark.usefixtures("no_vulkan")
def test_a_build_fails_before_anything_runs_and_a_plan_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("buildfile.toml").write_text(
        f'[models.tiny]\nsource = "{cached_checkpoint("llama-gqa")}"\nconv-template = "chatml"\n'
        '[[build]]\nquantizations = ["q4f16_1"]\nplatforms = ["x86_64-linux-vulkan", "x86_64-linux-cpu"]\n'
    )
    cache = ["--cache-dir", str(tmp_path / "store")]
    assert main(["build", *cache]) == ExitCode.TOOLCHAIN
    captured = capsys.readouterr()
    assert captured.err[captured.err.index("error: ") :].startswith(f"error: platform x86_64-linux-vulkan: {VULKAN}\n")
    assert not captured.out
    # No tool of the key is missing, so that the plan is exact; it says what cannot be done here.
    assert main(["plan", "--strict", *cache]) == ExitCode.OK
    out = " ".join(capsys.readouterr().out.split())
    assert "8 to run" in out and f"not here: {VULKAN}" in out
    assert not (tmp_path / "dist").exists()
    # Without that platform nothing stands in the way.
    assert main(["plan", "--platform", "x86_64-linux-cpu", "--cache-dir", str(tmp_path / "store")]) == ExitCode.OK


@pytest.fixture
def no_vulkan() -> None:
    if "vulkan" in Toolchain(Names()).code_generators():
        pytest.skip("the installed TVM has a code generator for Vulkan")


@pytest.mark.usefixtures("no_vulkan")
def test_targets_says_what_is_missing_and_what_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == ExitCode.OK
    rows = capsys.readouterr().out.splitlines()
    [at] = [number for number, row in enumerate(rows) if row.startswith("x86_64-linux-vulkan")]
    assert rows[at].endswith("  not here")
    below = " ".join(row.strip() for row in rows[at + 1 : at + 4])
    assert f"{VULKAN}; install a TVM" in below and "USE_VULKAN=ON" in below
    assert main(["targets", "x86_64-linux-vulkan", "--json"]) == ExitCode.OK
    [value] = json.loads(capsys.readouterr().out)
    assert value["ready"] == []
    assert value["missing"][0]["what"] == VULKAN


CUDA = '[[build]]\nquantizations = ["q4f16_1"]\nplatforms = ["x86_64-linux-cuda", "x86_64-linux-cpu"]\n'


def test_the_device_compiler_is_found_and_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    nvcc = tmp_path / "nvcc"
    nvcc.touch()
    identity = f"nvcc 13.0.88+sha256.{digest_json([['nvcc', digest_bytes(b'nvcc')]])}"

    def device_identity(part: Mapping[str, Json]) -> str | None:
        asked.append(part)
        return "nvcc 13.0.88" if "archs" in part else None

    monkeypatch.setattr("llmbuild.compiler.devices.identity", device_identity)
    monkeypatch.setattr("llmbuild.compiler.devices.parts", lambda part: Parts((nvcc,)) if "archs" in part else None)
    project = load(tmp_path / "buildfile.toml", '[models.a]\npreset = "Llama-2-7B"\n' + CUDA).project
    found = tools_of(project, tmp_path)
    assert (found.devices, found.lacks) == ({"x86_64-linux-cuda": identity}, {})
    assert len(asked) == 2
    world = dataclasses.replace(plans.observed(project), devices=found.devices)
    examined = examine(load_target("x86_64-linux-cuda"), Machine(Toolchain(Names()), TRUSTED, bytes_count=False))
    assert examined.compiler == "nvcc 13.0.88"
    assert "code      by nvcc 13.0.88" in in_full(examined)
    lowers = {task.platform: task for task in plans.tasks_of(project, world) if task.kind == "lower"}
    assert lowers["x86_64-linux-cuda"].tools["device compiler"] == identity
    assert "device compiler" not in lowers["x86_64-linux-cpu"].tools


def test_a_missing_device_compiler_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def device_identity(part: Mapping[str, Json]) -> str | None:
        if "archs" in part:
            raise ToolchainError("there is no CUDA compiler", fix="`pip install 'llmbuild[cuda]'`")
        return None

    monkeypatch.setattr("llmbuild.compiler.devices.identity", device_identity)
    _, [error] = lacking(tmp_path, CUDA)
    assert (error.where, error.what) == ("platform x86_64-linux-cuda", "there is no CUDA compiler")
    examined = examine(load_target("x86_64-linux-cuda"), Machine(Toolchain(Names()), TRUSTED))
    assert examined.ready == ()
    assert status(examined) == "not here"
    assert "  missing   there is no CUDA compiler\n            `pip install 'llmbuild[cuda]'`" in in_full(examined)


def test_a_variable_that_a_target_names_is_in_the_key_of_link_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets/mine.toml").write_text(
        '[target]\nextends = "x86_64-linux-cpu"\n[link]\nenvironment = ["MY_SDK"]\n'
    )
    text = '[models.a]\npreset = "Llama-2-7B"\n[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["mine"]\n'
    project = load(tmp_path / "buildfile.toml", text).project
    keys = []
    for value in (None, "/one", "/other", ""):
        monkeypatch.delenv("MY_SDK", raising=False)
        if value is not None:
            monkeypatch.setenv("MY_SDK", value)
        found = tools_of(project, tmp_path)
        assert found.lacks == {}
        world = dataclasses.replace(plans.observed(project), linkers=found.linkers, variables=found.variables)
        tools = {task.kind: task.tools for task in plans.tasks_of(project, world)}
        assert "variable MY_SDK" not in tools["lower"]
        assert "/one" not in json.dumps(tools["link"])
        keys.append(tools["link"]["variable MY_SDK"])
    assert len(set(keys)) == 4 and keys[0] == "unset"


def test_a_machine_of_another_kind_is_told_how_statistics_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbuild.workspace import observe

    monkeypatch.setattr(observe, "calibrates_here", lambda: False)
    lack = observe._not_calibrating()["calibrate"]
    assert lack.error.what == "this machine cannot calibrate weights"
    assert "llmbuild cache export" in (lack.error.fix or "")
    monkeypatch.setattr(observe, "calibrates_here", lambda: True)
    assert observe._not_calibrating() == {}
