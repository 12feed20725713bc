"""A tiny library: its functions, its metadata, what its helpers compute, and equal bytes in every process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.lower import configure, resolve_target
from llmbuild.errors import InputError, UsageError
from tests.helpers.tiny_library import TARGET, build_objects, chat_config, link_shared

ROOT = Path(__file__).parents[2]

RELAX = [
    "embed",
    "get_logits",
    "batch_select_last_hidden_states",
    *(
        f"{name}{ending}"
        for name in ("prefill", "decode", "batch_prefill", "batch_decode", "batch_verify")
        for ending in ("", "_to_last_hidden_states")
    ),
    "create_tir_paged_kv_cache",
    "softmax_with_temperature",
    "alloc_embedding_tensor",
    "gather_hidden_states",
    "scatter_hidden_states",
    "_metadata",
]
PRIMFUNCS = [
    "apply_logit_bias_inplace",
    "apply_penalty_inplace",
    "apply_bitmask_inplace",
    "scatter_probs",
    "gather_probs",
]
METADATA = [
    "model_type",
    "quantization",
    "context_window_size",
    "sliding_window_size",
    "attention_sink_size",
    "prefill_chunk_size",
    "tensor_parallel_shards",
    "pipeline_parallel_stages",
    "disaggregation",
    "kv_state_kind",
    "max_batch_size",
    "active_vocab_size",
    "model_task",
    "params",
    "kv_cache",
    "group_size",
    "memory_usage",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    import tvm
    from tvm import relax

    where = tmp_path_factory.mktemp("tiny")
    metadata = build_objects(where)
    link_shared(where, where / "lib.so")
    assert json.loads((where / "metadata.json").read_text()) == metadata
    module = tvm.runtime.load_module(str(where / "lib.so"))
    return module, relax.VirtualMachine(module, tvm.cpu()), metadata


def test_functions(library: tuple[Any, Any, Any]) -> None:
    module, machine, _ = library
    for name in RELAX:
        assert machine[name] is not None
    for name in PRIMFUNCS:
        assert module.get_function(name, True) is not None, name
    assert not module.implements_function("multinomial_from_uniform", True)


def test_metadata(library: tuple[Any, Any, Any]) -> None:
    _, machine, metadata = library
    record = json.loads(machine["_metadata"]())
    assert record == metadata
    assert list(record) == METADATA
    assert record["kv_cache"] == {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    assert record["params"][0] == {
        "name": "model.embed_tokens.q_weight",
        "shape": [160, 8],
        "dtype": "uint32",
        "preprocs": [],
        "pipeline_stages": [0],
    }
    assert record["memory_usage"]["prefill"] > record["memory_usage"]["decode"] > 0
    assert record["memory_usage"]["alloc_embedding_tensor"] == record["prefill_chunk_size"] * 64 * 4


def test_softmax_with_temperature(library: tuple[Any, Any, Any]) -> None:
    import tvm

    _, machine, metadata = library
    logits = np.random.default_rng(0).standard_normal((3, 1, 160)).astype(np.float32)
    logits[2, 0, 5] = logits[2, 0, 7] = 9
    temperature = np.array([1.0, 0.5, 0.0], np.float32)
    got = machine["softmax_with_temperature"](tvm.runtime.tensor(logits), tvm.runtime.tensor(temperature)).numpy()
    active = metadata["active_vocab_size"]
    want = np.zeros_like(logits)
    for row in range(2):
        powers = np.exp(logits[row, 0, :active] / temperature[row])
        want[row, 0, :active] = powers / powers.sum()
    want[2, 0, [5, 7]] = 0.5
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_logit_processors(library: tuple[Any, Any, Any]) -> None:
    import tvm

    module, _, _ = library
    rng = np.random.default_rng(1)
    tensor = tvm.runtime.tensor
    logits = rng.standard_normal((3, 70)).astype(np.float32)
    work = tensor(logits)
    module.get_function("apply_logit_bias_inplace", True)(
        work,
        tensor(np.array([2, 0], np.int32)),
        tensor(np.array([5, 69], np.int32)),
        tensor(np.array([1.5, -2], np.float32)),
    )
    logits[2, 5] += 1.5
    logits[0, 69] -= 2
    np.testing.assert_allclose(work.numpy(), logits)

    penalties = np.array([[0.5, 0.25, 2.0]], np.float32)
    arguments = [[1], [0, 0], [3, 4], [2, 1]]
    module.get_function("apply_penalty_inplace", True)(
        work, *(tensor(np.array(a, np.int32)) for a in arguments), tensor(penalties)
    )
    for token, count in ((3, 2), (4, 1)):
        value = logits[1, token] - (0.5 + count * 0.25)
        logits[1, token] = value * 2 if value < 0 else value / 2
    np.testing.assert_allclose(work.numpy(), logits, rtol=1e-6)

    mask = rng.integers(-(2**31), 2**31, (3, 3), dtype=np.int64).astype(np.int32)
    module.get_function("apply_bitmask_inplace", True)(work, tensor(np.array([0, 2], np.int32)), tensor(mask))
    bits = (mask.view(np.uint32)[:, np.arange(70) // 32] >> (np.arange(70) % 32).astype(np.uint32)) & 1
    for row in (0, 2):
        logits[row] = np.where(bits[row] == 1, logits[row], np.finfo(np.float32).min)
    np.testing.assert_allclose(work.numpy(), logits, rtol=1e-6)


def test_row_moves(library: tuple[Any, Any, Any]) -> None:
    import tvm

    module, machine, _ = library
    rng = np.random.default_rng(2)
    source, target = rng.random((2, 8), np.float32), rng.random((5, 8), np.float32)
    rows = np.array([3, 1], np.int32)
    tensors = [tvm.runtime.tensor(a) for a in (source, rows, target)]
    moved = machine["scatter_hidden_states"](*tensors).numpy()
    np.testing.assert_array_equal(moved[[3, 1]], source)
    back = tvm.runtime.tensor(np.zeros_like(source))
    module.get_function("gather_probs", True)(tvm.runtime.tensor(moved), tensors[1], back)
    np.testing.assert_array_equal(back.numpy(), source)


@pytest.mark.slow
def test_every_process_makes_the_same_bytes(tmp_path: Path) -> None:
    """Hash seeds and addresses differ between processes; the artifacts must not."""
    script = (
        "import sys, pathlib, tests.helpers.tiny_library as t; from llmbuild.linkers import archive; "
        "o = pathlib.Path(sys.argv[1]); t.build_objects(o); t.link_shared(o, o / 'lib.so'); "
        "archive.write(sorted(o.glob('*.o')), o / 'lib.tar')"
    )
    seen = set()
    for seed in ("0", "77"):
        out = tmp_path / f"directory-{seed}"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-c", script, str(out)], check=True, env=environment, cwd=ROOT, capture_output=True
        )
        seen.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())))
    assert len(seen) == 1


def test_system_libraries_share_a_binary(tmp_path: Path) -> None:
    """Objects of two models with different prefixes link into one shared object without a clash."""
    for prefix in ("one_", "two_"):
        build_objects(tmp_path / prefix, system_lib=True, prefix=prefix)
    (tmp_path / "all").mkdir()
    for prefix in ("one_", "two_"):
        for path in (tmp_path / prefix).glob("*.o"):
            (tmp_path / "all" / (prefix + path.name)).write_bytes(path.read_bytes())
    link_shared(tmp_path / "all", tmp_path / "app.so")
    content = (tmp_path / "app.so").read_bytes()
    assert b"one___tvm_ffi__library_bin" in content and b"two___tvm_ffi__library_bin" in content


def test_configure_prefers_the_top_level_and_then_the_overrides() -> None:
    config = chat_config() | {"context_window_size": 128, "prefill_chunk_size": 64}
    assert configure(config, {}).context_window_size == 128
    changed = configure(config, {"context_window_size": 96})
    assert (changed.context_window_size, changed.prefill_chunk_size) == (96, 64)


def test_wrong_configurations() -> None:
    with pytest.raises(InputError, match="no model_config"):
        configure({"model_type": "llama"}, {})
    with pytest.raises(UsageError, match="unknown override 'nonsense'"):
        configure(chat_config(), {"nonsense": 1})
    with pytest.raises(UsageError, match="no host table"):
        resolve_target({"device": "cpu", "host": "x86"})
    with pytest.raises(UsageError, match="no device kind"):
        resolve_target({**TARGET, "device": "abacus"})
