"""A model compiled for this CPU with the generic kernels and TVM's default pipeline, run with weights given in memory.

This is the smallest way from a checkpoint to logits: no files, no kernels of ours, so that tests of the models fail for
the models' sake only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmbuild.models.family import Overrides
from llmbuild.models.parameter import Parameter
from llmbuild.models.registry import family, infer_model_type
from llmbuild.models.values import no_note
from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.parse_once import parse_once
from tests.helpers.reference_quant import DTYPES, dequantize, quantize


def is_packed(parameter: Parameter, scheme: Scheme) -> bool:
    chosen = {"linear": True, "embedding": scheme.quantize_embedding, "head": scheme.quantize_head, "plain": False}
    return scheme.quantized and chosen[parameter.role]


def scheme_of(scheme: str | Scheme) -> Scheme:
    """A scheme by its name, or one that has none: tests run layouts in float32 that the table has in float16 only."""
    return SCHEMES[scheme] if isinstance(scheme, str) else scheme


def stored(parameter: Parameter, value: np.ndarray, scheme: Scheme) -> dict[str, np.ndarray]:
    """What a weight directory holds for this parameter."""
    scheme = scheme.of(*parameter.modules)
    if not is_packed(parameter, scheme):
        return {parameter.name: value.astype(DTYPES[parameter.dtype or scheme.dtype])}
    words, scale = quantize(value, scheme.bits, scheme.group_size, scheme.dtype)
    if scheme.layout == "KN" and parameter.role != "embedding":
        words, scale = np.ascontiguousarray(words.T), np.ascontiguousarray(scale.T)
    stem = parameter.name.removesuffix("weight")
    return {f"{stem}q_weight": words, f"{stem}q_scale": scale}


def read_state(directory: Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The wanted tensors of a checkpoint, under the names that the text model has for them."""
    from llmbuild.checkpoints.renamed import renamed
    from llmbuild.models.open import open_checkpoint
    from llmbuild.models.wrapped import text_checkpoint

    with open_checkpoint(directory) as checkpoint:
        text = renamed(text_checkpoint(checkpoint, no_note), wanted, no_note)
        return {name: text.read(name) for name in wanted}


def only(module: Any, functions: Sequence[str] | None) -> Any:
    """The module without those of a model's functions that are not named; all of them where None is given."""
    from tvm import relax

    for variable in module.get_global_vars() if functions is not None else ():
        if isinstance(module[variable], relax.Function) and variable.name_hint not in functions:
            del module[variable]
    return module


class GenericLibrary:
    """A compiled model with one KV cache."""

    def __init__(
        self, directory: Path, scheme: str | Scheme = "q0f32", functions: Sequence[str] | None = None, **overrides: Any
    ) -> None:
        """Compile only `functions` where given, without the kernels for trees of drafts; all of them take twice as long."""
        import tvm
        from tvm import relax

        from llmbuild.compiler.passes.kv_cache import TREES, AttachKVCache, without_kernels
        from llmbuild.models.build import export

        source = json.loads((directory / "config.json").read_text())
        self.family = family(infer_model_type(source))
        self.scheme = scheme_of(scheme)
        self.config = self.family.configure(source, Overrides(**overrides))
        model = export(self.config, self.family, self.scheme)
        # LLVM takes less time at level 1 than these tiny models would save at 2.
        target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3", "opt-level": 1})
        with parse_once():
            module = AttachKVCache(model.kv_cache, target, None)(only(model.module, functions))
        if functions is not None:
            module = without_kernels(module, TREES)
        with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
            executable = relax.build(module, target=target, relax_pipeline="default")
        self.vm = relax.VirtualMachine(executable, tvm.cpu())
        self.weights = self._weights(directory, [name for name, _ in model.params])
        self.cache: Any = None

    def _weights(self, directory: Path, names: list[str]) -> list[Any]:
        import tvm

        parameters = self.family.parameters(self.config)
        state = read_state(directory, [source for parameter in parameters for source in parameter.sources])
        values: dict[str, np.ndarray] = {}
        for parameter in parameters:
            value = parameter.assemble([state[name] for name in parameter.sources])
            assert value.shape == parameter.shape
            values |= stored(parameter, value, self.scheme)
        assert list(values) == names
        return [tvm.runtime.tensor(values[name]) for name in names]

    def start(self, *, sequences: int = 1, tokens: int = 256, chunk: int | None = None, page: int = 16) -> None:
        """A fresh cache with sequences 0, 1, … added; `tokens` are those of all sequences together."""
        from tvm_ffi import Shape

        sliding = self.config.sliding_window_size != -1
        sizes = (sequences, tokens, chunk or self.config.prefill_chunk_size, page, int(sliding))
        self.cache = self.vm["create_tir_paged_kv_cache"](*(Shape([size]) for size in sizes))
        for sequence in range(sequences):
            builtin("kv_state_add_sequence")(self.cache, sequence)
            if sliding:
                window, sinks = self.config.sliding_window_size, self.config.attention_sink_size
                builtin("attention_kv_cache_enable_sliding_window_for_seq")(self.cache, sequence, window, sinks)

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        import tvm

        return self.vm["embed"](tvm.runtime.tensor(np.array(ids, "int32")), self.weights).numpy()

    def forward(
        self,
        name: str,
        ids: Sequence[int],
        lengths: Sequence[int] = (),
        positions: Sequence[int] | None = None,
        parents: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Logits of one call; `lengths` are the appended tokens of each sequence (default: all in sequence 0).

        `parents` makes a tree of each sequence's tokens, by the index of each one's parent there (-1: the root).
        """
        import tvm
        from tvm_ffi import Shape

        lengths = list(lengths) or [len(ids)]
        x = self.embed(ids)
        x = x[:, None, :] if name.startswith("batch_decode") else x[None]
        tree = None if parents is None else Shape(parents)
        builtin("kv_state_begin_forward")(self.cache, Shape(range(len(lengths))), Shape(lengths), tree)
        arguments = [tvm.runtime.tensor(np.ascontiguousarray(x))]
        if positions is not None:
            arguments.append(tvm.runtime.tensor(np.array(positions, "int32")))
        result = self.vm[name](*arguments, self.cache, self.weights)[0].numpy()
        builtin("kv_state_end_forward")(self.cache)
        return result

    def generate(self, prompt: Sequence[int], following: Sequence[int], chunk: int | None = None) -> np.ndarray:
        """Logits [1 + len(following), vocabulary] after the prompt (prefilled in chunks) and after each further token."""
        self.start(chunk=chunk)
        size = chunk or self.config.prefill_chunk_size
        for start in range(0, len(prompt), size):
            last = self.forward("prefill", prompt[start : start + size])
        rows = [last[0, 0]]
        rows += [self.forward("decode", [token])[0, 0] for token in following]
        return np.stack(rows)


def builtin(name: str) -> Any:
    import tvm

    return tvm.get_global_func(f"vm.builtin.{name}")


def reference_logits(directory: Path, ids: Sequence[int], scheme: str | Scheme = "q0f32", **config: Any) -> np.ndarray:
    """transformers' float32 logits [len(ids), vocabulary], of weights as the scheme stores them."""
    return logits_of(stored_model(directory, scheme, **config), ids)


def logits_of(model: Any, ids: Sequence[int]) -> np.ndarray:
    """A transformers model's logits [len(ids), vocabulary]."""
    import torch

    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([list(ids)])).logits[0].numpy()
    return logits


def stored_model(directory: Path, scheme: str | Scheme, **config: Any) -> Any:
    """The checkpoint in transformers, in float32 with weights as the scheme stores them."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", **config
    ).eval()
    chosen = scheme_of(scheme)
    source = json.loads((directory / "config.json").read_text())
    kind = family(infer_model_type(source))
    roles = {
        name: parameter
        for parameter in kind.parameters(kind.configure(source, Overrides()))
        for name in parameter.sources
    }
    with torch.no_grad():
        for name, value in model.named_parameters():
            array = value.numpy()
            # transformers calls GPT-NeoX's head lm_head in memory, and embed_out in files.
            if is_packed(roles[name] if name in roles else roles["embed_out.weight"], chosen):
                words, scale = quantize(array, chosen.bits, chosen.group_size, chosen.dtype)
                array = dequantize(words, scale, chosen.bits, chosen.group_size, array.shape[1])
            value.copy_(torch.from_numpy(array.astype(DTYPES[chosen.dtype]).astype(np.float32)))
    return model


def tails(logits: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Each row agrees within the relative L2 tolerance and has the same argmax."""
    assert logits.shape == expected.shape
    for actual, wanted in zip(logits, expected, strict=True):
        assert relative_l2(actual, wanted) < tolerance
    assert (logits.argmax(-1) == expected.argmax(-1)).all()


def relative_l2(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
