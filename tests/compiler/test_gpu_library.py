"""What a GPU library offers beside the model: the set for each device kind, and one of them all run from end to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.devices import find_device
from llmbuild.compiler.passes.logits import AttachLogitProcessors
from llmbuild.compiler.passes.row_moves import AttachRowMoves
from llmbuild.compiler.passes.sampling import AttachSampling
from llmbuild.compiler.passes.softmax import AttachSoftmaxWithTemperature
from tests.helpers.opencl import Device, compiling

SAMPLING = {
    "multinomial_from_uniform",
    "argsort_probs",
    "sample_with_top_p",
    "sampler_take_probs",
    "sampler_verify_draft_tokens",
    "renormalize_by_top_p",
}
FOR_WEBGPU = {"argsort_probs", "sample_with_top_p"}
ALWAYS = {
    "softmax_with_temperature",
    "apply_logit_bias_inplace",
    "apply_penalty_inplace",
    "apply_bitmask_inplace",
    "scatter_probs",
    "gather_probs",
    "scatter_hidden_states",
    "gather_hidden_states",
}


def attach(device: str) -> Any:
    import tvm

    module, kind = tvm.IRModule(), find_device(device)
    kernels = kind.kernels()
    for step in (
        AttachSoftmaxWithTemperature(kernels.softmax, 300),
        AttachLogitProcessors(kernels.logits),
        AttachRowMoves(kernels.row_moves, "float32"),
        AttachSampling(kind.sampling),
    ):
        module = step(module)
    return module


@pytest.mark.parametrize(
    ("device", "sampling"),
    [
        ("cuda", SAMPLING),
        ("metal", SAMPLING),
        ("vulkan", SAMPLING),
        ("webgpu", FOR_WEBGPU),
        ("opencl", set()),
        ("rocm", set()),
        ("llvm", set()),
    ],
)
def test_the_set_of_each_device(device: str, sampling: set[str]) -> None:
    names = {name.name_hint for name in attach(device).get_global_vars()}
    assert names & (SAMPLING | ALWAYS) == ALWAYS | sampling


@pytest.fixture(scope="module")
def library() -> tuple[Any, Device]:
    """A machine with the functions of a Metal library, whose kernels PoCL runs."""
    import tvm
    from tvm import relax

    transform = relax.transform
    with compiling() as device:
        # What the pipeline does to functions that are scheduled already.
        pipeline = tvm.transform.Sequential(
            [
                tvm.tirx.transform.BindTarget(device.target),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
                tvm.tirx.transform.ForceNarrowIndexToInt32(),
                relax.get_pipeline("default_build"),
            ]
        )
        with device.target, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
            executable = relax.build(attach("metal"), target=device.target, relax_pipeline=pipeline)
    return relax.VirtualMachine(executable, tvm.cpu()), device


def call(library: tuple[Any, Device], name: str, *arrays: np.ndarray) -> Any:
    import tvm

    result = library[0][name](*map(tvm.runtime.tensor, arrays))
    return result.numpy() if isinstance(result, tvm.runtime.Tensor) else [part.numpy() for part in result]


def test_from_logits_to_tokens(library: tuple[Any, Device]) -> None:
    """The calls that MLC's runtime makes for two sequences, with the shapes that it passes."""
    logits = np.random.default_rng(0).standard_normal((2, 1, 320)).astype(np.float32) * 3
    probs = call(library, "softmax_with_temperature", logits, np.float32([1, 0]))[:, 0]
    assert (probs[1] > 0).sum() == 1 and not probs[:, 300:].any()
    values, indices = call(library, "argsort_probs", probs)
    np.testing.assert_array_equal(indices, np.argsort(-probs, axis=1, kind="stable"))
    np.testing.assert_array_equal(values, -np.sort(-probs, axis=1))
    uniform, rows = np.float32([0.3, 0.8, 0.8]), np.int32([0, 0, 1])
    tokens = call(library, "sample_with_top_p", values, indices, uniform, rows, np.float32([0.9, 0.9]))
    kept = call(library, "renormalize_by_top_p", probs, np.float32([0.9, 0.9]), np.float32([[0.1, 0.02, 0.01]] * 2))
    assert tokens[2] == indices[1, 0] and (kept[rows, tokens] > 0).all()
    again = call(library, "multinomial_from_uniform", kept, uniform, rows)
    assert again[2] == tokens[2] and (kept[rows, again] > 0).all()
    sampled, top, top_indices = call(library, "sampler_take_probs", probs, indices, rows, tokens, np.int32([0, 1, 320]))
    np.testing.assert_array_equal(sampled, probs[rows, tokens])
    np.testing.assert_array_equal(top, values[[0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(top_indices, indices[[0, 0, 1], [0, 1, 0]])
    assert library[1].launches["argsort_kernel"] + library[1].launches["argsort_kernel_1"] == 1


def test_drafts_are_verified_in_place(library: tuple[Any, Device]) -> None:
    import tvm

    draft = np.full((3, 8), 0.125, np.float32)
    model = np.tile(np.float32([0.5, 0.5, 0, 0, 0, 0, 0, 0]), (3, 1))
    arguments = [draft, np.int32([0, 1, 5]), model, np.int32([1, 2, -1]), np.int32([-1, -1, -1])]
    tensors = [tvm.runtime.tensor(a) for a in (*arguments, np.float32([0.5] * 3), np.int32([0]))]
    library[0]["sampler_verify_draft_tokens"](*tensors)
    # Token 1 is likelier than in the draft, token 5 impossible: what is left is the model without the draft's part.
    assert tensors[6].numpy().tolist() == [1]
    np.testing.assert_allclose(tensors[2].numpy()[1], [0.5, 0.5, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(tensors[2].numpy()[[0, 2]], model[[0, 2]])


def test_hidden_states_move(library: tuple[Any, Device]) -> None:
    source, target = np.float32([[1, 2], [3, 4]]), np.zeros((4, 2), np.float32)
    moved = call(library, "scatter_hidden_states", source, np.int32([2, 0]), target)
    assert moved.tolist() == [[3, 4], [0, 0], [1, 2], [0, 0]]
    assert call(library, "gather_hidden_states", moved, np.int32([0, 2]), np.zeros((2, 2), np.float32)).tolist() == [
        [3, 4],
        [1, 2],
    ]
