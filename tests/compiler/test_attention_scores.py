"""Every score of TVM's attention kernels is capped and hidden before the maximum, on every device, or lowering fails."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbuild.compiler.lower import resolve_target
from llmbuild.compiler.passes import attention_scores
from llmbuild.compiler.passes.attention_scores import CPU, GPU, alter_scores
from llmbuild.compiler.passes.kv_cache import TREES, AttachKVCache
from llmbuild.errors import ToolchainError
from tests.helpers import wgsl
from tests.helpers.cache_scenarios import make_layout
from tests.helpers.device_code import DEVICES, device_code
from tests.helpers.gpu_library import LINUX, TARGETS
from tests.helpers.opencl_source import front_end_errors, require_clang

VULKAN = {
    "device": {
        "kind": "vulkan",
        "max_num_threads": 256,
        "max_threads_per_block": 256,
        "max_shared_memory_per_block": 32768,
    },
    "host": LINUX,
}
CAPPED, HIDDEN = "T.float32(7.9053111076354", "q_rope_position["
STORES = {"S_smem": 3, "S_local": 3, "S_val": None, "attention_score": 2}
"""Of the buffer that the maximum reads: the score, and what weights, masks and sums are kept there."""
KINDS = ("cuda", "rocm", "metal", "opencl", "adreno", "vulkan", "webgpu", "llvm")
USUAL = ("cuda", "llvm")


@functools.cache
def stock(kind: str, dim: int, window: int | None = None, softcap: float | None = None) -> Any:
    """A module with the cache and all of TVM's attention kernels, altered where there is something to alter."""
    import tvm

    if kind == "llvm":
        target = tvm.target.Target({"kind": "llvm"})
    else:
        _, target = resolve_target(VULKAN if kind == "vulkan" else TARGETS[kind])
    # The kernels for a cache that rolls are there only where it does.
    layout = replace(make_layout(window, softcap, dim=dim, dtype="float16"), rolling=True)
    return AttachKVCache(layout, target, None)(tvm.IRModule())


@functools.cache
def texts(kind: str) -> dict[str, str]:
    module = stock(kind, 24 if kind == "llvm" else 64, 20, 2.0)
    forms = CPU if kind == "llvm" else GPU
    return {name: module[name].script() for name in forms if kind != "webgpu" or name not in TREES}


@pytest.mark.parametrize(
    "kind", [kind if kind in USUAL else pytest.param(kind, marks=pytest.mark.full) for kind in KINDS]
)
def test_no_score_reaches_the_maximum_as_it_was(kind: str) -> None:
    forms = CPU if kind == "llvm" else GPU
    for name, text in texts(kind).items():
        body = text[text.index("with T.sblock") :]
        # The scale has its sign in the window's condition alone.
        assert body.count("T.fabs(sm_scale)") == forms[name].scales, name
        assert body.count("sm_scale") == forms[name].scales + body.count("sm_scale < T.float32(0.0)"), name
        # Where the buffer that the maximum reads is written, it is the score, altered, or none of q and k.
        target = forms[name].target
        stores = re.findall(rf"^ *{target}\[[^=]*\] = (.*)$", body, re.MULTILINE)
        altered = [value for value in stores if CAPPED in value]
        rest = [value for value in stores if CAPPED not in value]
        assert len(altered) == 1, name
        windowed = not name.endswith("sliding_window") and name != "batch_tree_attn"
        assert windowed == forms[name].windowed
        assert (HIDDEN in altered[0]) == windowed, name
        sums = rf"{target}\[0\] \+ Q_local\[\w+\] \* K_local\[\w+\]"
        known = (r"T\.float32\(-?[\d.]+\)", r"T\.exp2\(.*\)", sums, r"T\.float32\(-72134.*\) \* T\.fabs\(sm_scale\)")
        assert all(any(re.fullmatch(pattern, value) for pattern in known) for value in rest), (name, rest)
        maxima = re.findall(r"= T\.max\(\w+\[\w+\], (\w+)\[", body)
        assert target in maxima, name
        assert ("first_tile" in body) == (windowed and forms[name].lowest is not None)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("S_store", None, None),
        ("S_smem[i, j] = S_local[i, j]", "S_smem[i, j] = S_local[i, j] * T.float32(2)", "0 kept scores"),
        ("* sm_scale", "* sm_scale * sm_scale", "2 uses of sm_scale"),
        ("L_kv_start", "begin", "no variable L_kv_start"),
        ("k_rope_pos_offset", "starts", "no parameter k_rope_pos_offset"),
        ("range((kv_chunk_len[0] + 31) // 32)", "range(kv_chunk_len[0])", "0 loops over tiles"),
    ],
)
def test_another_text_is_an_error(old: str, new: str | None, reason: str | None) -> None:
    """A name of a block does not matter; what the kernel does with scores does."""
    import tvm

    name = "batch_prefill_ragged_kv"
    text = stock("cuda", 64)[name].script()
    assert old in text
    changed = tvm.script.from_source(text.replace(old, old if new is None else new))
    module = tvm.IRModule({name: changed})
    layout, others = make_layout(20, 2.0, dim=64, dtype="float16"), set(GPU) - {name}
    if reason is None:
        alter_scores(module, layout, True, others)
        return
    with pytest.raises(ToolchainError, match=name) as caught:
        alter_scores(module, layout, True, others)
    assert reason in str(caught.value.why)


def test_a_kernel_that_is_missing_or_new_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module, layout = stock("cuda", 64), make_layout(20, None, dim=64, dtype="float16")
    monkeypatch.setattr(attention_scores, "GPU", {**GPU, "another": GPU["batch_tree_attn"]})
    with pytest.raises(ToolchainError, match="another") as missing:
        alter_scores(module, layout, True, ())
    assert missing.value.why == "it is missing"
    monkeypatch.setattr(attention_scores, "GPU", {key: GPU[key] for key in GPU if key != "batch_tree_attn"})
    with pytest.raises(ToolchainError, match="batch_tree_attn"):
        alter_scores(module, layout, True, ())


@pytest.mark.parametrize(
    "kind", [kind if kind == "webgpu" else pytest.param(kind, marks=pytest.mark.full) for kind in DEVICES]
)
def test_device_code(kind: str, tmp_path: Path) -> None:
    """The altered kernels become code of each kind, and compilers that are here accept it."""
    module = stock(kind, 64, 20, 2.0)
    if kind != "webgpu":
        text = device_code({name: module[name] for name in GPU}, kind)
        assert text.count("amdgpu_kernel" if kind == "rocm" else "7.905311") >= len(GPU)
    if kind == "opencl":
        require_clang()
        assert front_end_errors(text, tmp_path / "kernels.cl") == ""
    if kind == "webgpu":
        if reason := wgsl.missing():
            pytest.skip(reason)
        kernels = {name: device_code({name: module[name]}, kind) for name in GPU if name not in TREES}
        assert wgsl.validate(kernels, tmp_path / "shaders") == {}
