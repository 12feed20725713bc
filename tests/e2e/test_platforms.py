"""One manifest, every target that this machine serves: what is shared is made once, and each artifact is what it should be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmbuild.compiler.device_code import fatbin
from llmbuild.compiler.devices import rocm
from llmbuild.targets.files import load_target
from tests.helpers.artifacts import read_archive, read_library
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.opencl_source import front_end_errors, opencl_sources, require_clang
from tests.helpers.web_runtime import seed

SCHEME = "q4f16_1"
FORMATS = {"linux": "elf", "android": "elf", "macos": "macho", "macabi": "macho", "ios": "macho", "windows": "pe"}
SYSTEMS = {"macos": ("MACOS", "13.0"), "ios": ("IOS", "17.0"), "macabi": ("MAC_CATALYST", "17.0")}
MARKS = {
    "metal": b"#include <metal_stdlib>",
    "opencl": b"__kernel void",
    "mali": b"__kernel void",
    "adreno": b"__kernel void",
    "webgpu": b"@compute @workgroup_size",
}
C_LIBRARY = {"cosf", "erff", "exp2f", "expf", "log2f", "memset", "powf", "sincosf", "sinf"}
TVM_RUNTIME = {"TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace", "TVMBackendParallelLaunch"}
"""What a system library takes from the program that it is in; a shared one is given it when it is loaded."""
LOADER = {
    "__cxa_finalize",
    "__gmon_start__",
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
    "dyld_stub_binder",
    "_fltused",
}
"""What a system's own start-up code asks for, mostly if it is there, and a mark of Microsoft's compilers."""

MANIFEST = """\
[project]
name = "platforms"

[models.tiny]
source = "checkpoint"
conv-template = "chatml"

[metadata]
context-window-size = 64
prefill-chunk-size = 32

[[build]]
models = ["tiny"]
quantizations = ["{scheme}"]
platforms = {platforms}
"""

pytestmark = pytest.mark.slow


EACH_KIND = {
    *("aarch64-android-adreno", "aarch64-ios-metal", "aarch64-macos-metal", "aarch64-windows-cpu", "wasm32-webgpu"),
    *("x86_64-linux-cuda", "x86_64-linux-rocm", "x86_64-windows-opencl"),
}
"""A target of each device kind and each system: what a usual test run builds.  `pytest -m full` builds them all."""


def ready(project: ProjectDir, every: bool) -> dict[str, str]:
    """Target -> artifact, of those that can be built here.  `llmbuild targets` decides, as it does for a user."""
    told = json.loads(project.run("targets", "--json").out)
    can = {one["name"]: one["default"] for one in told if one["default"] in one["ready"]}
    return {name: artifact for name, artifact in can.items() if every or name in EACH_KIND}


@pytest.fixture(scope="module", params=["each-kind", pytest.param("every-target", marks=pytest.mark.full)])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ProjectDir, dict[str, str]]:
    """The project after its first build, in which what is shared is made once."""
    project = make_project(tmp_path_factory.mktemp("platforms"), checkpoint=cached_checkpoint("llama"))
    seed(project.store)
    targets = ready(project, every=request.param == "every-target")
    project.write(MANIFEST.format(scheme=SCHEME, platforms=json.dumps(sorted(targets))))
    ran = project.build()
    assert ran == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": len(targets), "link": len(targets)}
    return project, targets


def library(project: ProjectDir, target: str, artifact: str) -> Path:
    return project.root / f"dist/libs/tiny-{SCHEME}-{target}.{artifact}"


def test_a_second_build_runs_nothing(built: tuple[ProjectDir, dict[str, str]]) -> None:
    project, _ = built
    assert project.build() == {}


def test_each_artifact_is_for_its_system(built: tuple[ProjectDir, dict[str, str]], tmp_path: Path) -> None:
    project, targets = built
    seen = set()
    for target, artifact in targets.items():
        path = library(project, target, artifact)
        if artifact == "wasm":
            assert path.read_bytes().startswith(b"\0asm\1\0\0\0")
            continue
        prefix = "llama_q4f16_1_" if artifact == "tar" else ""
        seen.add(check_host_code(target, path, prefix, tmp_path / target))
    assert seen >= {"android", "ios"}


@pytest.mark.full
def test_archives_of_targets_that_have_libraries_too(tmp_path: Path) -> None:
    """The objects of the targets whose default is a shared library, each under a prefix."""
    project = make_project(tmp_path, checkpoint=cached_checkpoint("llama"))
    told = json.loads(project.run("targets", "--json").out)
    targets = [one["name"] for one in told if "tar" in one["ready"] and one["default"] != "tar"]
    assert {"x86_64-linux-rocm", "aarch64-linux-mali", "aarch64-windows-cpu", "x86_64-windows-opencl"} <= set(targets)
    tables = [f'target = "{name}"\nartifact = "tar"\nsystem-lib-prefix = "mine_"\n' for name in targets]
    manifest = MANIFEST.format(scheme=SCHEME, platforms=json.dumps([f"{name}-tar" for name in targets]))
    platforms = [f"[platforms.{name}-tar]\n{table}" for name, table in zip(targets, tables, strict=True)]
    project.write("\n".join([manifest, *platforms]))
    assert project.build()["link"] == len(targets)
    for name in targets:
        check_host_code(name, library(project, f"{name}-tar", "tar"), "mine_", tmp_path / name)


def check_host_code(target: str, path: Path, prefix: str, scratch: Path) -> str:
    """Each file of the library is for the target's system, which is returned, and asks nothing else of others than it may."""
    import tvm_ffi

    interface = read_library(Path(tvm_ffi.libinfo.find_libtvm_ffi())).exports
    system = next(name for name in FORMATS if f"-{name}" in target)
    members = read_archive(path, scratch) if path.suffix == ".tar" else {path.name: read_library(path)}
    exports = set[str]().union(*(facts.exports for facts in members.values()))
    assert f"{prefix}__tvm_ffi__library_bin" in exports, target
    needs = set[str]().union(*(facts.needs for facts in members.values())) - exports
    allowed = interface | LOADER
    if target.endswith(("-cpu", "-native")):
        allowed |= C_LIBRARY | (TVM_RUNTIME if path.suffix == ".tar" else set())
    assert "TVMFFIErrorSetRaisedFromCStrParts" in needs <= allowed, (target, needs - allowed)
    for name, facts in members.items():
        assert (facts.format, facts.cpu) == (FORMATS[system], target.partition("-")[0]), (target, name)
        assert (facts.platform, facts.minimum_os) == SYSTEMS.get(system, ("", "")), (target, name)
    return system


def test_device_code_is_inside(built: tuple[ProjectDir, dict[str, str]], tmp_path: Path) -> None:
    project, targets = built
    for target, artifact in targets.items():
        data = library(project, target, artifact).read_bytes()
        kind = target.split("-")[2] if target.count("-") > 1 else target.split("-")[1]
        if kind == "cuda":
            archs = load_target(target).archs
            assert archs and set(archs) <= {one.arch for one in fatbin.entries(data) if one.kind == "cubin"}, target
            assert b"__global__" not in data
        elif kind == "rocm":
            (code,) = rocm.code_objects(data)
            assert [rocm.machine(code)] == list(load_target(target).archs)
        elif kind in MARKS:
            assert MARKS[kind] in data, target
        else:
            assert kind == "cpu", target


def test_opencl_compiles(built: tuple[ProjectDir, dict[str, str]], tmp_path: Path) -> None:
    project, targets = built
    require_clang()
    for target, artifact in targets.items():
        if not re.search("opencl|mali|adreno", target):
            continue
        sources = opencl_sources(library(project, target, artifact).read_bytes())
        assert sources, target
        for number, text in enumerate(sources):
            assert front_end_errors(text, tmp_path / f"{target}-{number}.cl") == "", target


@pytest.mark.full
def test_a_second_clone_makes_the_same_bytes(built: tuple[ProjectDir, dict[str, str]], tmp_path: Path) -> None:
    """A second clone, in another directory and with a store of its own, makes the same files."""
    project, _ = built
    other = make_project(tmp_path, (project.root / "buildfile.toml").read_text(), cached_checkpoint("llama"))
    seed(other.store)
    other.build()
    first, second = project.snapshot(), other.snapshot()
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
