"""Add the functions with which a runtime samples on the device.

Before: no such functions.
After, those that the device kind's runtimes call (float32 probabilities of b rows and v tokens, n samples, int32 indices):
- `argsort_probs(probs[b, v]) -> (sorted[b, v], indices[b, v])`, descending, equal ones in the order of their indices;
- `multinomial_from_uniform(probs[b, v], uniform[n], rows[n]) -> tokens[n]`;
- `sample_with_top_p(sorted[b, v], indices[b, v], uniform[n], rows[n], top_p[b]) -> tokens[n]`;
- `sampler_take_probs(probs[b, v], indices[b, v], rows[n], tokens[n], offsets[m]) -> (probs[n], probs[m], tokens[m])`;
- `sampler_verify_draft_tokens(draft[k, v], tokens[k], model[k, v], first_child[k], next_sibling[k], uniform[k],
  parents[b]) -> (model, parents)`, both changed in place;
- `renormalize_by_top_p(probs[b, v], top_p[b], guesses[b, 3]) -> [b, v]`.
The set is MLC's, and so are the signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import tvm
from tvm import relax, tirx

from llmbuild.compiler.kernels.gpu import argsort, renormalize, sampling, verify
from llmbuild.compiler.kernels.gpu.block import blocked
from llmbuild.compiler.reuse import directly


def _tensor(name: str, shape: list[Any], dtype: str = "float32") -> Any:
    return relax.Var(name, relax.TensorType(shape, dtype))


def _sizes(*names: str) -> list[Any]:
    return [tirx.Var(name, "int64") for name in names]


def _argsort(builder: Any, one: Callable[..., Any]) -> None:
    batch, vocabulary = _sizes("batch_size", "vocab_size")
    probs = _tensor("probs", [batch, vocabulary])
    indices = relax.TensorType([batch, vocabulary], "int32")
    with builder.function("argsort_probs", [probs]):
        with builder.dataflow():
            kernel = builder.add_func(one(blocked, argsort.argsort_kernel), "argsort")
            # The third and fourth are the sort's working memory.
            found = builder.emit(relax.call_tir(kernel, [probs], out_ty=[probs.ty, indices, probs.ty, indices]))
            result = builder.emit_output(relax.Tuple([found[0], found[1]]))
        builder.emit_func_output(result)


def _multinomial(builder: Any, one: Callable[..., Any]) -> None:
    batch, samples, vocabulary = _sizes("batch_size", "num_samples", "vocab_size")
    rows = _tensor("sample_indices", [samples], "int32")
    params = [_tensor("probs", [batch, vocabulary]), _tensor("uniform_samples", [samples]), rows]
    _one_call(builder, one, "multinomial_from_uniform", params, sampling.multinomial_kernel, rows.ty)


def _top_p(builder: Any, one: Callable[..., Any]) -> None:
    batch, samples, vocabulary = _sizes("batch_size", "num_samples", "vocab_size")
    rows = _tensor("sample_indices", [samples], "int32")
    params = [
        _tensor("sorted_probs", [batch, vocabulary]),
        _tensor("sorted_indices", [batch, vocabulary], "int32"),
        _tensor("uniform_samples", [samples]),
        rows,
        _tensor("top_p", [batch]),
    ]
    _one_call(builder, one, "sample_with_top_p", params, sampling.top_p_kernel, rows.ty)


def _take_probs(builder: Any, one: Callable[..., Any]) -> None:
    batch, samples, positions, vocabulary = _sizes("batch_size", "num_samples", "num_positions", "vocab_size")
    params = [
        _tensor("unsorted_probs", [batch, vocabulary]),
        _tensor("sorted_indices", [batch, vocabulary], "int32"),
        _tensor("sample_indices", [samples], "int32"),
        _tensor("sampling_result", [samples], "int32"),
        _tensor("top_prob_offsets", [positions], "int32"),
    ]
    outputs = [
        relax.TensorType([samples], "float32"),
        relax.TensorType([positions], "float32"),
        relax.TensorType([positions], "int32"),
    ]
    _one_call(builder, one, "sampler_take_probs", params, sampling.take_probs_kernel, outputs)


def _verify(builder: Any, one: Callable[..., Any]) -> None:
    nodes, batch, vocabulary = _sizes("num_nodes", "nbatch", "vocab_size")
    params = [
        _tensor("draft_probs", [nodes, vocabulary]),
        _tensor("draft_tokens", [nodes], "int32"),
        _tensor("model_probs", [nodes, vocabulary]),
        _tensor("token_tree_first_child", [nodes], "int32"),
        _tensor("token_tree_next_sibling", [nodes], "int32"),
        _tensor("uniform_samples", [nodes]),
        _tensor("token_tree_parent_ptr", [batch], "int32"),
    ]
    with builder.function("sampler_verify_draft_tokens", params):
        with builder.dataflow():
            kernel = builder.add_func(one(blocked, verify.verify_kernel), "verify_draft_tokens")
            changed = [2, 6]
            call = relax.op.call_tir_inplace(kernel, params, changed, [params[i].ty for i in changed])
            result = builder.emit_output(call)
        builder.emit_func_output(result)


def _renormalize(builder: Any, one: Callable[..., Any]) -> None:
    batch, vocabulary = _sizes("batch_size", "vocab_size")
    probs, top_p = _tensor("probs", [batch, vocabulary]), _tensor("top_p", [batch])
    guesses = _tensor("init_pivots", [batch, renormalize.GUESSES])
    with builder.function("renormalize_by_top_p", [probs, top_p, guesses]):
        with builder.dataflow():
            pivot = builder.add_func(one(blocked, renormalize.pivot_kernel), "top_p_pivot")
            apply = builder.add_func(one(blocked, renormalize.renormalize_kernel), "top_p_renormalize")
            found = builder.emit(relax.call_tir(pivot, [probs, top_p, guesses], out_ty=[top_p.ty, top_p.ty]))
            result = builder.emit_output(relax.call_tir(apply, [probs, found[0], found[1]], out_ty=probs.ty))
        builder.emit_func_output(result)


def _one_call(
    builder: Any, one: Callable[..., Any], name: str, params: list[Any], kernel: Callable[..., Any], outputs: Any
) -> None:
    """A function that is one launch of a kernel on all of its parameters."""
    with builder.function(name, params):
        with builder.dataflow():
            callee = builder.add_func(one(blocked, kernel), f"{name}_kernel")
            result = builder.emit_output(relax.call_tir(callee, params, out_ty=outputs))
        builder.emit_func_output(result)


FUNCTIONS: Mapping[str, Callable[[Any, Callable[..., Any]], None]] = {
    "multinomial_from_uniform": _multinomial,
    "argsort_probs": _argsort,
    "sample_with_top_p": _top_p,
    "sampler_take_probs": _take_probs,
    "sampler_verify_draft_tokens": _verify,
    "renormalize_by_top_p": _renormalize,
}


@tvm.transform.module_pass(opt_level=0, name="AttachSampling")
class AttachSampling:
    """See the module's docstring."""

    def __init__(self, names: Collection[str], one: Callable[..., Any] = directly) -> None:
        """`one` gives the kernel that a function makes of arguments."""
        self.names = names
        self.one = one

    def transform_module(self, module: Any, _: Any) -> Any:
        builder = relax.BlockBuilder(module)
        for name in self.names:
            FUNCTIONS[name](builder, self.one)
        return builder.finalize()
