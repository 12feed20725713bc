"""The targets that come with llmbuild: each loads, TVM takes it, and the table of the documents has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import ToolchainError
from llmbuild.targets.compile_part import CPU
from llmbuild.targets.files import load_target
from llmbuild.targets.kinds import device_kind, kind_names
from llmbuild.targets.names import TargetNames, bundled_directory, target_names
from llmbuild.targets.target import SHARED, STATIC

DOCS = Path(__file__).parent.parent.parent / "docs"

# Device kind, beginning of the triple, artifacts, of the targets that the project promises.
PROMISED = {
    "x86_64-linux-cpu": ("llvm", "x86_64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-cpu-native": ("llvm", "x86_64-unknown-linux-gnu", "so tar"),
    "aarch64-linux-cpu": ("llvm", "aarch64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-cuda": ("cuda", "x86_64-unknown-linux-gnu", "so tar"),
    "aarch64-linux-cuda": ("cuda", "aarch64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-rocm": ("rocm", "x86_64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-rocm-gfx942": ("rocm", "x86_64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-rocm-gfx1100": ("rocm", "x86_64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-opencl": ("opencl", "x86_64-unknown-linux-gnu", "so tar"),
    "aarch64-linux-mali": ("opencl", "aarch64-unknown-linux-gnu", "so tar"),
    "x86_64-linux-vulkan": ("vulkan", "x86_64-unknown-linux-gnu", "so tar"),
    "x86_64-windows-vulkan": ("vulkan", "x86_64-pc-windows-msvc", "dll tar"),
    "aarch64-macos-metal": ("metal", "arm64-apple-macosx13.0.0", "dylib tar"),
    "x86_64-macos-metal": ("metal", "x86_64-apple-macosx13.0.0", "dylib tar"),
    "aarch64-macabi-metal": ("metal", "arm64-apple-ios17.0.0-macabi", "tar dylib"),
    "aarch64-ios-metal": ("metal", "arm64-apple-ios17.0.0", "tar"),
    "aarch64-android-opencl": ("opencl", "aarch64-linux-android", "tar so"),
    "aarch64-android-adreno": ("opencl", "aarch64-linux-android", "tar so"),
    "aarch64-android-adreno-so": ("opencl", "aarch64-linux-android", "tar so"),
    "wasm32-webgpu": ("webgpu", "wasm32-unknown-unknown-wasm", "wasm"),
    "x86_64-windows-cpu": ("llvm", "x86_64-pc-windows-msvc", "dll tar"),
    "x86_64-windows-opencl": ("opencl", "x86_64-pc-windows-msvc", "dll tar"),
    "aarch64-windows-cpu": ("llvm", "aarch64-pc-windows-msvc", "dll tar"),
}


def test_the_bundled_targets_are_those_that_are_promised() -> None:
    assert set(target_names()) == set(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_a_target_is_what_its_name_says(name: str) -> None:
    kind, triple, artifacts = PROMISED[name]
    target = load_target(name)
    assert (target.device["kind"], target.triple, " ".join(target.artifacts)) == (kind, triple, artifacts)
    assert target.artifact in target.artifacts
    assert target.description
    assert target.files[0] == bundled_directory() / f"{name}.toml"
    assert re.fullmatch(r"[^.]+\.toml", target.files[0].name)
    # Applications of phones link several models; every other library is loaded or linked alone.
    phone = any(word in name for word in ("ios", "macabi", "android"))
    assert target.system_lib_prefix == ("{model_type}_{quantization}_" if phone else "")
    assert set(target.artifacts) <= SHARED | STATIC | {"wasm"}
    assert target.can_compute("float32")
    assert target.can_compute("float16")
    assert target.several_devices == (kind in ("cuda", "rocm"))


@pytest.mark.parametrize("name", PROMISED)
def test_the_link_part_has_what_its_system_asks_for(name: str) -> None:
    target = load_target(name)
    link = target.link_part()
    assert link["triple"] == target.triple
    assert ("minimum-os" in link) == ("apple" in target.triple)
    assert link.get("needed") == (["c", "m"] if "android" in target.triple else None)
    if "apple" in target.triple:
        assert str(link["minimum-os"]) in target.triple


@pytest.mark.parametrize("name", PROMISED)
def test_tvm_takes_the_target(name: str) -> None:
    tvm = pytest.importorskip("tvm")
    try:
        part = load_target(name).compile_part()
    except ToolchainError:
        pytest.skip("not an x86-64 machine")
    device, host = part["device"], part["host"]
    assert isinstance(device, dict) and isinstance(host, dict)
    made = tvm.target.Target({**device, "host": host})
    assert str(made.kind) == PROMISED[name][0]
    assert str(made.host.kind) == CPU
    for key, value in device.items():
        if key not in ("kind", "device", "mattr"):
            assert made.attrs[key] == value, key


@pytest.mark.parametrize("kind", kind_names())
def test_the_attributes_are_those_of_tvm(kind: str) -> None:
    tvm = pytest.importorskip("tvm")
    with pytest.raises(Exception, match="Known options") as caught:
        tvm.target.Target({"kind": kind, "no-such-option": 1})
    listed = str(caught.value).split("Known options:", 1)[1].split(". Target creation", 1)[0]
    known = set(re.findall(r"'([^']+)'", listed))
    # Not for a file: TVM fills the first in, the second is a part of its own.
    assert known - {"from_device", "host"} == set(device_kind(kind).attributes)


@pytest.mark.parametrize("kind", kind_names())
def test_the_attributes_have_the_types_of_tvm(kind: str) -> None:
    target: Any = pytest.importorskip("tvm").target.Target
    values: dict[type, Any] = {int: 8, bool: True, str: "x", list: ["+x"]}
    for name, wanted in device_kind(kind).attributes.items():
        if name in ("kind", "tag", "keys", "mtriple", "mcpu", "arch", "libs", "device", "model", "mattr", "mabi"):
            # Those whose values TVM looks at as soon as the target is made.
            continue
        if name in ("mfloat-abi", "jit", "cl-opt", "target_device_type", "opt-level"):
            continue
        also = {"supports_subgroups": True} if name == "thread_warp_size" and kind == "webgpu" else {}
        target({"kind": kind, name: values[wanted], **also})
        if wanted is not str:
            with pytest.raises(Exception, match="expected type"):
                target({"kind": kind, name: "x"})


def test_the_words_of_other_tools_name_targets_that_exist() -> None:
    names = TargetNames()
    assert {name for found in names.words.values() for name in found} <= set(PROMISED)
    devices = "cuda metal vulkan rocm opencl iphone macabi android android:adreno android:adreno-so webgpu metal:x86-64"
    for word in (*devices.split(), "iphone:generic", "webgpu:generic", "android:generic", "Windows", "cpu"):
        said = names.nearest(word, PROMISED)
        assert said is not None and said.endswith("here"), word
    assert names.nearest("cuda", ["x86_64-linux-cpu"]) is None
    for word, alias in {"ios": "iphone", "WEB": "web", "web ": "web", "wasm": "web", "Android ": "android"}.items():
        said = names.nearest(word, PROMISED)
        assert said is not None and f"'{word}' is spelled" in said and f"'{alias}'" in said, said
    assert names.nearest("ios", PROMISED, aliases=False) == "'ios' is spelled 'aarch64-ios-metal' here"
    assert names.nearest("cpu", PROMISED) == "'cpu' is spelled 'aarch64-linux-cpu' or 'x86_64-linux-cpu' here"
    near = names.nearest("x86_64-linux-cud", PROMISED)
    assert near is not None and near.startswith("did you mean 'x86_64-linux-cuda'")


def test_lanes_of_amd_gpus_follow_from_the_architecture() -> None:
    lanes = {}
    for name in PROMISED:
        if "rocm" in name:
            device = load_target(name).compile_part()["device"]
            assert isinstance(device, dict)
            lanes[device["mcpu"]] = device["thread_warp_size"]
    assert lanes == {"gfx90a": 64, "gfx942": 64, "gfx1100": 32}


def test_the_table_of_platforms_has_every_target() -> None:
    rows = [line.split("|") for line in (DOCS / "platforms.md").read_text().splitlines() if line.startswith("| `")]
    table = {row[1].strip().strip("`"): row[3].strip() for row in rows if len(row) == 8}
    assert list(table) == list(PROMISED)
    for name, (_, _, kinds) in PROMISED.items():
        assert set(table[name].replace(".", "").split(", ")) == set(kinds.split()), name


def test_the_documents_name_every_word_for_a_device() -> None:
    text = (DOCS / "mlc-options.md").read_text().split("## Names of devices", 1)[1]
    named = {word for line in text.splitlines() if line.startswith("| `") for word in re.findall(r"`([^`]+)`", line)}
    assert {name for name in named if "-" in name and ":" not in name} <= set(PROMISED)
    for word in ("cuda", "rocm", "vulkan", "opencl", "mali", "metal", "iphone", "macabi", "android", "webgpu", "cpu"):
        assert word in named
        assert set(TargetNames().words[word]) & named, word
