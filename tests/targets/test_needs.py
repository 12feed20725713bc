"""What a job installs for each target, from the target alone."""

from __future__ import annotations

import pytest

from llmbuild.targets.files import load_target
from llmbuild.targets.names import target_names
from llmbuild.targets.needs import Needs, needs

CC = ("gcc", "libc6-dev")
CROSS = Needs(("cross",))
EXPECTED = {
    "aarch64-android-adreno": Needs(),
    "aarch64-android-adreno-so": CROSS,
    "aarch64-ios-metal": Needs(),
    "aarch64-linux-cpu": CROSS,
    "aarch64-linux-cuda": Needs(("cross", "cuda")),
    "aarch64-macos-metal": CROSS,
    "wasm32-webgpu": Needs((), ("emscripten",)),
    "x86_64-linux-cpu": Needs((), CC),
    "x86_64-linux-cuda": Needs(("cuda",), CC),
    "x86_64-linux-opencl": Needs((), CC),
    "x86_64-linux-rocm": Needs(("cross",), CC),
    "x86_64-windows-cpu": CROSS,
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_bundled_targets(name: str) -> None:
    target = load_target(name)
    assert needs({"device": target.device}, target.link_part(), target.artifact) == EXPECTED[name]


def test_every_target_has_an_answer() -> None:
    for name in target_names():
        target = load_target(name)
        for artifact in target.artifacts:
            found = needs({"device": target.device}, target.link_part(), artifact)
            assert set(found.extras) <= {"cross", "cuda"}


@pytest.mark.parametrize(
    ("linker", "expected"), [("zig", CROSS), ("lld", Needs((), ("lld",))), ("cc", Needs((), CC)), ("ndk", Needs())]
)
def test_a_linker_that_is_asked_for(linker: str, expected: Needs) -> None:
    assert needs({"device": {"kind": "llvm"}}, {"triple": "x86_64-linux-gnu", "linker": linker}, "so") == expected


def test_a_compiler_that_is_named_is_the_project_s_own() -> None:
    assert needs({}, {"triple": "x86_64-linux-gnu", "compiler": "mycc"}, "so") == Needs()


def test_the_tools_that_a_target_requires() -> None:
    tools = [
        {"command": "a", "install": "sudo apt-get install -y spirv-tools lld"},
        {"command": "b", "install": "apt install $(evil)"},
        {"command": "c", "install": "brew install c"},
        {"command": "d", "install": ""},
    ]
    found = needs({}, {"triple": "x86_64-linux-gnu"}, "tar", tools)
    assert found == Needs((), ("spirv-tools", "lld"))
    assert found.to_json() == {"pip": "llmbuild", "apt": "spirv-tools lld"}
    assert Needs(("cross", "cuda")).to_json()["pip"] == "llmbuild[cross,cuda]"
