"""What the pipeline makes for GPUs: which functions, how their products read weights, and what they compute on PoCL."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.lower import require_code_generator, resolve_target
from llmbuild.errors import ToolchainError
from llmbuild.quantization.layers import packed_shapes
from llmbuild.quantization.scheme import SCHEMES
from tests.compiler.test_lower import PRIMFUNCS, RELAX
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.generic_library import reference_logits, relative_l2
from tests.helpers.gpu_library import TARGETS, WIDE, scheduled, vm_code
from tests.helpers.opencl_library import OpenCLLibrary

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

CASES = [("cuda", "q4f32_1"), ("metal", "q4f16_1"), ("webgpu", "q4f32_1"), ("opencl", "q3f16_1"), ("adreno", "q4f16_0")]


@functools.cache
def module(name: str, scheme: str) -> Any:
    return scheduled(name, scheme)


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_functions_of_a_device(name: str, scheme: str) -> None:
    """Exactly those of the document; some come later in the pipeline, `_`-names are not for runtimes."""
    from tvm import relax

    from llmbuild.models.decoder import COPIES

    functions = {variable.name_hint: function for variable, function in module(name, scheme).functions_items()}
    found = {hint for hint, function in functions.items() if isinstance(function, relax.Function)}
    assert found == (set(RELAX) - {"_metadata", "alloc_embedding_tensor", *COPIES}) | ON_DEVICE.get(name, set())
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
    # Four of a layer and the head, each for one row and for any number of rows.
    assert products == 10


@pytest.mark.parametrize(("name", "word"), [("cuda", "wmma"), ("metal", "simdgroup")])
def test_matrix_units_are_used(name: str, word: str) -> None:
    """A product of any number of rows with a packed weight goes to tensor cores and simdgroup matrices in float16."""
    assert word in product(name)["main"].script()


def test_metal_code_has_simdgroup_matrices() -> None:
    """The functions that are narrowed before they are scheduled compile, and keep their matrix products."""
    import tvm

    _, target = resolve_target(TARGETS["metal"])
    with target, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        built = tvm.tirx.build(product("metal"), target=target)
    assert "simdgroup_multiply_accumulate" in built.imports[0].inspect_source()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rows", [1, None])
def test_eight_bits_are_scheduled_as_four(name: str, rows: int | None) -> None:
    """By the same rules, for a row and for many: the same threads, and as many buffers in the same memories."""

    def shape(scheme: str) -> Any:
        text = product(name, scheme, rows)["main"].script()
        return re.findall(r'T\.thread_binding\(\d+, thread="\w+\.\w"\)', text), re.findall(r'scope="[\w.]+"', text)

    threads, buffers = shape("q8f16_1")
    assert (threads, buffers) == shape("q4f16_1")
    assert buffers


@functools.cache
def product(name: str, scheme_name: str = "q4f16_1", rows: int | None = None) -> Any:
    """One product of [1, s, 128] with a packed weight [128, 128], scheduled; s is any number where `rows` is none."""
    import tvm
    from tvm import te, tirx

    from llmbuild.compiler.kernels.gpu.linear import packed_product

    size, scheme = 128, SCHEMES[scheme_name]
    x = te.placeholder((1, rows or tirx.Var("seq_len", "int64"), size), "float16", name="x")
    shapes = zip(("words", "scales"), packed_shapes(scheme, size, size), ("uint32", "float16"), strict=True)
    packed = [te.placeholder(shape, dtype, name=label) for label, shape, dtype in shapes]
    result = packed_product(x, packed, scheme, size, size, "float16")
    function = te.create_prim_func([x, *packed, result], index_dtype_override="int64")
    device, target = resolve_target(TARGETS[name])
    with target:
        module = tvm.IRModule({"matmul": function})
        scheduled = tvm.transform.Sequential(device.schedules(target))(module)
    return tvm.IRModule({"main": scheduled["matmul"].with_attr("global_symbol", "main")})


@pytest.mark.parametrize("asked", [False, True])
def test_cuda_graphs_are_captured_where_asked_for(asked: bool) -> None:
    lowered = vm_code("cuda", "q4f32_1", ("embed", "decode", "batch_decode"), cuda_graph=asked)
    names = {variable.name_hint for variable in lowered.get_global_vars()}
    assert any(name.startswith("batch_decode_cuda_graph_capture") for name in names) == asked, names
    assert ("cuda_graph_alloc_init" in names) == asked


@pytest.mark.parametrize("name", ["cuda", "opencl"])
def test_a_view_is_no_kernel(name: str) -> None:
    """Reshapes are views of memory: no kernel copies for one, and none is compiled that nothing calls."""
    from tvm import ir, relax, tirx

    compiled = vm_code(name, "q4f16_1", ["embed", "batch_prefill", "batch_decode"])
    called: set[str] = set()

    def visit(expression: Any) -> None:
        if isinstance(expression, ir.GlobalVar):
            called.add(expression.name_hint)

    kernels = set()
    for variable, function in compiled.functions_items():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
        elif isinstance(function, tirx.PrimFunc) and "global_symbol" not in (function.attrs or {}):
            kernels.add(variable.name_hint)
    assert kernels <= called
    assert "fused_split_silu_multiply" in called
    assert [kernel for kernel in called if "reshape" in kernel] == []


def test_a_missing_code_generator_is_named() -> None:
    require_code_generator("metal")
    with pytest.raises(ToolchainError, match="writes no code for abacus"):
        require_code_generator("abacus")


@pytest.mark.parametrize("scheme", ["q4f32_1"])
def test_logits_of_opencl_kernels(scheme: str) -> None:
    """Prompt, decode steps, and batches for each of the three schedules of a product, against transformers."""
    directory = cached_checkpoint("llama3")
    library = OpenCLLibrary(directory, scheme, ("embed", "prefill", "decode", "batch_decode"), optimize=False)
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


@pytest.mark.full
@pytest.mark.parametrize(("name", "scheme"), [("metal", "q4f16_1"), ("webgpu", "q4f32_1"), ("adreno", "q4f16_0")])
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
        seen.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())))
    assert len(seen) == 1
