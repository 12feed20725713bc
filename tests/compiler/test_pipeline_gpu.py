"""What the pipeline makes for GPUs: which functions, how their products read weights, and what they compute on PoCL."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.lower import require_code_generator
from llmbuild.errors import ToolchainError
from tests.compiler.test_lower import PRIMFUNCS, RELAX
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.generic_library import reference_logits, relative_l2
from tests.helpers.gpu_library import WIDE, OpenClLibrary, scheduled, vm_code

ROOT = Path(__file__).parents[2]

SAMPLING = {
    "multinomial_from_uniform",
    "argsort_probs",
    "sample_with_top_p",
    "sampler_take_probs",
    "sampler_verify_draft_tokens",
    "renormalize_by_top_p",
}
ON_DEVICE = {"cuda": SAMPLING, "metal": SAMPLING, "webgpu": {"argsort_probs", "sample_with_top_p"}}
"""What MLC's runtimes sample with on a device (formats: the model library); on others they sample on the host."""

CASES = [("cuda", "q4f16_1"), ("metal", "q4f16_1"), ("webgpu", "q4f32_1"), ("opencl", "q3f16_1"), ("adreno", "q4f16_0")]


@functools.cache
def module(name: str, scheme: str) -> Any:
    return scheduled(name, scheme)


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_functions_of_a_device(name: str, scheme: str) -> None:
    """Exactly those of the document; `_metadata` comes later in the pipeline, `_`-names are not for runtimes."""
    from tvm import relax

    functions = {variable.name_hint: function for variable, function in module(name, scheme).functions_items()}
    found = {hint for hint, function in functions.items() if isinstance(function, relax.Function)}
    assert found == (set(RELAX) - {"_metadata"}) | ON_DEVICE.get(name, set())
    assert set(PRIMFUNCS) <= set(functions)


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_no_function_writes_a_whole_weight(name: str, scheme: str) -> None:
    """No output and no buffer in the device's memory is as large as an unpacked weight, transposed or not."""
    from tvm import tirx

    smallest = WIDE["hidden_size"] ** 2
    products = 0
    for variable, function in module(name, scheme).functions_items():
        if not isinstance(function, tirx.PrimFunc) or "matmul" not in variable.name_hint:
            continue
        products += 1
        assert function.attrs["tirx.is_scheduled"]
        buffers = [p for p in function.params if tirx.is_buffer_var(p)]
        buffers += [b for b in function.body.block.alloc_buffers if b.scope() == "global"]
        for buffer in buffers:
            if str(buffer.dtype).startswith("float") and all(isinstance(size, tirx.IntImm) for size in buffer.shape):
                assert math.prod(int(size) for size in buffer.shape) < smallest, f"{variable.name_hint}: {buffer.shape}"
        assert any(str(buffer.dtype) == "uint32" for buffer in buffers), variable.name_hint
    assert products >= 12


@pytest.mark.parametrize(("name", "word"), [("cuda", "wmma"), ("metal", "simdgroup")])
def test_matrix_units_are_used(name: str, word: str) -> None:
    """Products over many rows in float16 go to tensor cores and simdgroup matrices."""
    texts = {
        variable.name_hint: function.script()
        for variable, function in module(name, "q4f16_1").functions_items()
        if "dequantize_matmul" in variable.name_hint
    }
    assert sum(word in text for text in texts.values()) >= 8, {hint: word in text for hint, text in texts.items()}


def test_metal_code_has_simdgroup_matrices() -> None:
    """The functions that are narrowed before they are scheduled compile, and keep their matrix products."""
    import tvm

    target = tvm.target.Target({"kind": "metal", "max_threads_per_block": 256, "host": {"kind": "llvm"}})
    functions = module("metal", "q4f16_1")
    name = next(v for v in functions.get_global_vars() if v.name_hint.startswith("fused_dequantize_matmul"))
    wide = [v for v in functions.get_global_vars() if "simdgroup" in functions[v].script() and "matmul" in v.name_hint]
    assert name is not None and wide
    one = tvm.IRModule({"main": functions[wide[0]].with_attr("global_symbol", "main")})
    with target, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        built = tvm.tirx.build(one, target=target)
    assert "simdgroup_multiply_accumulate" in built.imports[0].inspect_source()


@pytest.mark.parametrize("asked", [False, True])
def test_cuda_graphs_are_captured_where_asked_for(asked: bool) -> None:
    lowered = vm_code("cuda", "q4f16_1", ("embed", "decode", "batch_decode"), cuda_graph=asked)
    names = {variable.name_hint for variable in lowered.get_global_vars()}
    assert any(name.startswith("batch_decode_cuda_graph_capture") for name in names) == asked, names
    assert ("cuda_graph_alloc_init" in names) == asked


def test_a_missing_code_generator_is_named() -> None:
    require_code_generator("metal")
    with pytest.raises(ToolchainError, match="writes no code for abacus"):
        require_code_generator("abacus")


@pytest.mark.parametrize("scheme", ["q4f32_1"])
def test_logits_of_opencl_kernels(scheme: str) -> None:
    """Prompt, decode steps, and batches for each of the three schedules of a product, against transformers."""
    directory = cached_checkpoint("llama")
    library = OpenClLibrary(directory, scheme, ("embed", "prefill", "decode", "batch_decode"))
    ids = [(7 * i + 3) % 300 for i in range(24)]
    expected = reference_logits(directory, ids, scheme)
    logits = library.generate(ids[:20], ids[20:23])
    for row, want in zip(logits, expected[19:23], strict=True):
        assert relative_l2(row, want) < 1e-4
    for sequences in (2, 3, 9):
        library.start(sequences=sequences)
        for step in range(2):
            rows = library.forward("batch_decode", [ids[step]] * sequences, [1] * sequences)
            assert max(relative_l2(row[0], expected[step]) for row in rows) < 1e-4
    assert np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), [("webgpu", "q4f32_1"), ("metal", "q4f16_1"), ("adreno", "q4f16_0")])
def test_every_process_makes_the_same_objects(name: str, scheme: str, tmp_path: Path) -> None:
    """Hash seeds and addresses differ between processes; objects must not."""
    script = (
        "import sys, pathlib; from tests.helpers.gpu_library import lower_objects; "
        "lower_objects(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))"
    )
    seen = set()
    for seed in ("0", "77"):
        out = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", script, name, scheme, str(out)]
        subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True)
        names = ("lib0.o", "devc.o", "metadata.json")
        seen.add(tuple(hashlib.sha256((out / file).read_bytes()).hexdigest() for file in names))
    assert len(seen) == 1
