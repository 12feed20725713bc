"""What lowering takes from an earlier one: the bytes are those of a lowering that took nothing, and what changes is made anew."""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Digest
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.gpu_library import TARGETS as GPU_TARGETS
from tests.helpers.gpu_library import WIDE
from tests.helpers.kept import Memory
from tests.helpers.tiny_library import TARGET, chat_config

TARGETS: Mapping[str, Mapping[str, Any]] = {"cpu": TARGET, **GPU_TARGETS}


def lowered(
    out: Path, name: str, scheme: str, kept: Memory | None, prefix: str | None = None, **changes: Any
) -> dict[str, str]:
    """The digests of the files of a library; `changes` are of the configuration."""
    from llmbuild.compiler.lower import lower

    config = chat_config({**WIDE, **changes.pop("source", {})}, scheme) | changes
    out.mkdir()
    wasm = name == "webgpu"
    lower(
        config,
        SCHEMES[scheme],
        {},
        TARGETS[name],
        system_lib=wasm or prefix is not None,
        system_lib_prefix="" if wasm else prefix,
        out=out,
        activations="int8x2" if name == "cpu" else None,
        kept=kept,
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


WINDOW: dict[str, Any] = {"context_window_size": 32}
CHUNK: dict[str, Any] = {"prefill_chunk_size": 16}
LAYERS: dict[str, Any] = {"source": {"num_hidden_layers": 1}}
OTHERS = {"metal": "q3f16_1", "webgpu": "q0f32", "adreno": "q4f16_1", "opencl": "q4f16_1", "cpu": "q4f16_1"}


class Pairs:
    """Libraries that take what is kept, each compared with one that takes nothing."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory, self.kept = name, directory, Memory()

    def __call__(self, label: str, scheme: str, prefix: str | None = None, **changes: Any) -> tuple[int, int]:
        """Compare one, and return how many results were taken and made."""
        self.kept.count()
        warm = lowered(self.directory / f"{label}-warm", self.name, scheme, self.kept, prefix, **changes)
        counts = self.kept.taken, self.kept.made
        assert warm == lowered(self.directory / f"{label}-cold", self.name, scheme, None, prefix, **changes)
        return counts


def test_a_warm_library_has_the_bytes_of_a_cold_one(tmp_path: Path) -> None:
    pairs = Pairs("cpu", tmp_path)
    lowered(tmp_path / "first", "cpu", "q4f32_1", pairs.kept)
    assert pairs.kept.taken < 5
    # A window is in no kernel: what is made is at most a function on shapes.
    assert pairs("window", "q4f32_1", **WINDOW)[1] <= 3


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("cpu", "q4f32_1"), ("metal", "q4f16_1"), ("webgpu", "q4f32_1"), ("adreno", "q4f16_0"), ("opencl", "q0f16")],
)
def test_whatever_changes(name: str, scheme: str, tmp_path: Path) -> None:
    pairs = Pairs(name, tmp_path)
    pairs("first", scheme)
    assert pairs("same", scheme)[1] == 0
    assert pairs("window", scheme, **WINDOW)[1] <= 3
    assert pairs("chunk", scheme, **CHUNK)[1] <= 3
    taken, made = pairs("layers", scheme, **LAYERS)
    assert taken > made > 0
    taken, made = pairs("scheme", OTHERS[name])
    assert taken > 0 and made > 0
    pairs("prefix", scheme, "tiny_")


@pytest.mark.full
def test_what_is_kept_has_no_place_in_another_library(tmp_path: Path) -> None:
    """Another number of heads: nothing that has to do with it is taken."""
    kept = Memory()
    lowered(tmp_path / "one", "cpu", "q4f32_1", kept)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    warm = lowered(tmp_path / "heads", "cpu", "q4f32_1", kept, source=heads)
    assert warm == lowered(tmp_path / "cold", "cpu", "q4f32_1", None, source=heads)
    assert warm != lowered(tmp_path / "same", "cpu", "q4f32_1", kept)


@pytest.mark.full
def test_what_is_gone_is_made_again(tmp_path: Path) -> None:
    """A collection takes any of them, and whatever is left serves."""
    kept = Memory()
    whole = lowered(tmp_path / "whole", "cpu", "q4f32_1", kept)
    names = sorted(kept)
    for part in range(2):
        some = Memory()
        some |= {name: kept[name] for index, name in enumerate(names) if index % 2 == part}
        assert lowered(tmp_path / f"part-{part}", "cpu", "q4f32_1", some) == whole
        assert set(some) == set(kept)


HOSTS: Mapping[str, str] = {"metal": "x86_64-apple-macosx13.0.0", "opencl": "aarch64-unknown-linux-gnu"}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("metal", None),
        pytest.param("opencl", None, marks=pytest.mark.full),
        pytest.param("metal", "tiny_", marks=pytest.mark.full),
    ],
)
def test_hosts_share_all_but_their_own_code(
    name: str, prefix: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix is in the names of kernels and of what they are launched by: there, scheduled kernels are shared."""
    pairs = Pairs(name, tmp_path)
    lowered(tmp_path / "first", name, "q4f16_1", pairs.kept)
    other = {**TARGETS[name], "host": {"kind": "llvm", "mtriple": HOSTS[name]}}
    monkeypatch.setattr(sys.modules[__name__], "TARGETS", {name: other})
    taken, made = pairs("other", "q4f16_1", prefix)
    assert taken > 10 and made == (3 if prefix is None else 7)


def test_code_of_one_platform_is_none_for_another() -> None:
    """TVM's target has one architecture, and a platform may have several."""
    from llmbuild.compiler.reuse import Reuse

    kept, made = Memory(), []
    for number, archs in enumerate(([], ["a"], ["a", "b"], ["a"])):
        reuse = Reuse(kept, "host", {"archs": archs})
        made.append(reuse.device_code(["k"], lambda n=number: bytes([n])))  # type: ignore[misc]
    assert made == [b"\0", b"\1", b"\2", b"\1"]
    hosts = [Reuse(kept, host, "device").host_code(["k"], host.encode) for host in ("one", "other")]
    assert hosts == [b"one", b"other"]


def test_what_another_lowering_makes_meanwhile_is_taken() -> None:
    from llmbuild.compiler.reuse import Reuse

    class Busy(Memory):
        """Another lowering makes the result that this one is about to make."""

        @contextmanager
        def alone(self, key: Digest) -> Iterator[None]:
            self[key] = b"made by another"
            yield

    kept = Busy()
    assert Reuse(kept).device_code([], lambda: b"made here") == b"made by another"
    assert (kept.taken, kept.made) == (1, 0)


def constant(value: str) -> Any:
    """A kernel that contains a number."""
    from tvm import tirx

    return tirx.PrimFunc([], tirx.Evaluate(tirx.FloatImm("float64", float(value))))


@pytest.mark.parametrize("value", ["0.1", "-0.0", "1e300", "-inf", "1e-45", "1.2345678901234567e-300"])
def test_numbers_come_back_as_they_were(value: str) -> None:
    from llmbuild.compiler.reuse import Reuse

    kept = Memory()
    Reuse(kept).kernel(constant, value)
    second = Reuse(kept)
    found = second.real(second.kernel(constant, value)).body.value.value
    assert kept.taken == 1 and struct.pack("d", found) == struct.pack("d", float(value))


def test_what_tvm_cannot_read_back_is_not_kept() -> None:
    import tvm

    from llmbuild.compiler.reuse import Reuse

    kept = Memory()
    one = Reuse(kept)
    assert one.real(one.kernel(constant, "5e-324")).body.value.value == 5e-324
    assert not kept
    with pytest.raises(ValueError, match="Expecting value"):
        tvm.ir.load_json(tvm.ir.save_json(constant("5e-324")))


def test_an_argument_that_nothing_describes_is_refused() -> None:
    from llmbuild.compiler.reuse import described

    assert described(SCHEMES["q4f16_1"]) == ["Scheme", "q4f16_1", 4, "float16", 32, "NK", True, True, "round", []]
    assert described({"a": (1, None)}) == {"a": [1, None]}
    assert described(lowered) == [__name__, "lowered"]
    for value in (object(), lambda: None, Memory().get):
        with pytest.raises(TypeError, match="has no description"):
            described(value)
