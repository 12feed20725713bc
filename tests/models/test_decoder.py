"""The decoder module against the parameter list (all families and schemes) and against transformers (numbers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import KVCacheLayout
from llmbuild.models.registry import family, infer_model_type
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.checkpoints import CONFIGS, cached_checkpoint, make_checkpoint
from tests.helpers.generic_library import GenericLibrary, is_packed, reference_logits, relative_l2, tails

PROMPT = list(np.random.default_rng(5).integers(3, 310, 37))
FOLLOWING = [7, 301, 11, 250, 3]
ONE_SEQUENCE = ("embed", "prefill", "decode")
SUPPORTED = list(CONFIGS)
IN_CI = ("gpt_neox", "gpt_neox-sequential", "llama-bias", "mistral", "qwen2-tied")
FUNCTIONS = {
    "embed",
    "get_logits",
    "batch_select_last_hidden_states",
    *(f"{name}{ending}" for name in ("prefill", "decode") for ending in ("", "_to_last_hidden_states")),
    *(f"batch_{name}{ending}" for name in ("prefill", "decode", "verify") for ending in ("", "_to_last_hidden_states")),
}


def export(variant: str, scheme: str, **overrides: Any) -> tuple[Any, Any]:
    from llmbuild.models.build import export as build

    kind = family(infer_model_type(CONFIGS[variant]))
    config = kind.configure(CONFIGS[variant], Overrides(**overrides))
    return kind.parameters(config), build(config, kind, SCHEMES[scheme])


@pytest.mark.parametrize("variant", SUPPORTED)
@pytest.mark.parametrize("scheme", ["q0f32", "q4f16_1", "q3f16_0", "q4f16_2", "q4bf16_0"])
def test_the_module_declares_exactly_the_listed_parameters(variant: str, scheme: str) -> None:
    parameters, exported = export(variant, scheme)
    chosen = SCHEMES[scheme]
    expected: list[tuple[str, tuple[int, ...], str]] = []
    for parameter in parameters:
        if not is_packed(parameter, chosen):
            expected.append((parameter.name, parameter.shape, parameter.dtype or chosen.dtype))
            continue
        n, k = parameter.shape
        groups = -(-k // chosen.group_size)
        step = -1 if chosen.layout == "KN" and parameter.role != "embedding" else 1
        stem = parameter.name.removesuffix("weight")
        expected.append((f"{stem}q_weight", (n, 4 * groups)[::step], "uint32"))
        expected.append((f"{stem}q_scale", (n, groups)[::step], chosen.dtype))
    assert [(name, tuple(map(int, value.shape)), value.dtype) for name, value in exported.params] == expected


def test_the_exported_functions_and_their_signatures() -> None:
    _, exported = export("llama3", "q4f16_1")
    from tvm import relax

    from llmbuild.compiler.passes.copies import CopyFunctions
    from llmbuild.models.decoder import COPIES

    module = CopyFunctions(COPIES)(exported.module)
    functions = {v.name_hint: f for v, f in module.functions_items() if isinstance(f, relax.Function)}
    assert set(functions) == FUNCTIONS
    assert all(functions[name].attrs["global_symbol"] == name for name in FUNCTIONS)
    shapes = {
        name: [str(argument.ty.shape) for argument in function.params if isinstance(argument.ty, relax.TensorType)]
        for name, function in functions.items()
    }
    assert shapes["embed"] == ["R.shape([seq_len])"]
    assert shapes["prefill"] == ["R.shape([1, seq_len, 128])"]
    assert shapes["decode"] == ["R.shape([1, 1, 128])"]
    assert shapes["batch_prefill"] == ["R.shape([1, seq_len, 128])", "R.shape([batch_size])"]
    assert shapes["batch_decode"] == ["R.shape([batch_size, 1, 128])"]
    assert shapes["batch_select_last_hidden_states"] == ["R.shape([seq_len, 128])", "R.shape([batch_size])"]
    for name, function in functions.items():
        packed = isinstance(function.params[-1].ty, relax.TupleType)
        assert packed == (name != "batch_select_last_hidden_states")
        result = function.ret_ty.fields[0] if isinstance(function.ret_ty, relax.TupleType) else function.ret_ty
        logits = name == "get_logits" or not (name.endswith("states") or name == "embed")
        assert str(result.dtype) == ("float32" if logits else "float16")


def test_the_cache_layout_is_data() -> None:
    _, exported = export("llama3", "q4f16_1")
    scaling = CONFIGS["llama3"]["rope_scaling"]
    assert exported.kv_cache == KVCacheLayout(2, 4, 2, 32, "float16", make_rope(500000.0, 32, scaling))
    _, exported = export("gpt_neox", "q0f32")
    assert (exported.kv_cache.rope.rotary_dim, exported.kv_cache.num_key_value_heads) == (8, 4)


@pytest.mark.parametrize("key", ["tensor_parallel_shards", "pipeline_parallel_stages"])
def test_several_devices_are_refused(key: str) -> None:
    with pytest.raises(InputError, match="one device"):
        export("llama", "q4f16_1", **{key: 2})


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=() if name in IN_CI else pytest.mark.full) for name in SUPPORTED],
)
def test_logits_are_those_of_transformers(variant: str) -> None:
    """Prefill over three pages and five decode steps.  Sliding windows have a test of their own, and test_families.py has
    every family in every run."""
    directory = cached_checkpoint(variant)
    prompt = PROMPT[:20] if variant == "mistral" else PROMPT
    library = GenericLibrary(directory, functions=ONE_SEQUENCE)
    expected = reference_logits(directory, prompt + FOLLOWING)[len(prompt) - 1 :]
    tails(library.generate(prompt, FOLLOWING), expected, 2e-5)


@pytest.mark.parametrize(
    ("variant", "keys"),
    [("gpt_neox", {"rotary_pct": 0.5, "hidden_act": "relu"}), ("qwen2", {"head_dim": 64, "hidden_act": "gelu_fast"})],
)
def test_llama_3s_rotation_and_other_activations_in_other_families(
    variant: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    scaling = CONFIGS["llama3"]["rope_scaling"]
    directory = make_checkpoint(tmp_path / "checkpoint", variant, config={"rope_scaling": scaling, **keys})
    library = GenericLibrary(directory, functions=ONE_SEQUENCE)
    expected = reference_logits(directory, PROMPT + FOLLOWING)[len(PROMPT) - 1 :]
    tails(library.generate(PROMPT, FOLLOWING), expected, 2e-5)


def test_chunks_batches_and_hidden_states_agree_with_the_whole() -> None:
    directory = cached_checkpoint("llama3")
    library = GenericLibrary(directory)
    expected = reference_logits(directory, PROMPT + FOLLOWING)
    tails(library.generate(PROMPT, FOLLOWING), expected[len(PROMPT) - 1 :], 2e-5)
    tails(library.generate(PROMPT, FOLLOWING, chunk=16), expected[len(PROMPT) - 1 :], 2e-5)

    # Two sequences at once: PROMPT and a shorter one, then one decode step of both.
    other = [9, 8, 7, 6, 5]
    both = [*PROMPT, *other]
    other_expected = reference_logits(directory, [*other, 44])
    library.start(sequences=2)
    lengths = (len(PROMPT), len(other))
    first = library.forward("batch_prefill", both, lengths, positions=[len(PROMPT) - 1, len(both) - 1])
    tails(first[0], np.stack([expected[len(PROMPT) - 1], other_expected[4]]), 2e-5)
    second = library.forward("batch_decode", [FOLLOWING[0], 44], (1, 1))
    tails(second[:, 0], np.stack([expected[len(PROMPT)], other_expected[5]]), 2e-5)

    library.start()
    tails(library.forward("batch_verify", PROMPT)[0], expected[: len(PROMPT)], 2e-5)

    import tvm

    library.start()
    hidden = library.forward("prefill_to_last_hidden_states", PROMPT)[0]
    rows = library.vm["batch_select_last_hidden_states"](
        tvm.runtime.tensor(hidden), tvm.runtime.tensor(np.array([3, 36], "int32"))
    )
    tails(library.vm["get_logits"](rows, library.weights).numpy(), expected[[3, 36]], 2e-5)


def test_ids_outside_of_the_vocabulary_stay_in_the_table() -> None:
    library = GenericLibrary(cached_checkpoint("qwen2-tied"), "q4f32_1", functions=["embed"])
    assert (library.embed([-5, 10**6]) == library.embed([0, 319])).all()


def test_a_sliding_window_without_sinks_is_that_of_transformers() -> None:
    """Decoding beyond the window of 32.  TVM's cache keeps 32 tokens beside the current one, transformers' window counts
    the current one: a step sees what transformers sees with a window of 33."""
    directory = cached_checkpoint("mistral")
    following = [int(token) for token in np.random.default_rng(6).integers(3, 310, 40)]
    library = GenericLibrary(directory, functions=ONE_SEQUENCE, sliding_window_size=32, attention_sink_size=0)
    expected = reference_logits(directory, PROMPT[:20] + following, sliding_window=33)[19:]
    tails(library.generate(PROMPT[:20], following), expected, 2e-5)


def test_attention_sinks_keep_the_first_tokens(tmp_path: Path) -> None:
    """With one layer, keys and values depend on their own token only, so that the cache's content at contiguous
    positions is a sequence that transformers can run: four sinks, the last 28 tokens, the current one (Xiao et al., 2023)."""
    directory = make_checkpoint(tmp_path, "mistral", config={"num_hidden_layers": 1}, tokenizer=False)
    tokens = [int(token) for token in np.random.default_rng(7).integers(3, 310, 60)]
    library = GenericLibrary(directory, functions=ONE_SEQUENCE, sliding_window_size=32)
    assert library.config.attention_sink_size == 4
    logits = library.generate(tokens[:20], tokens[20:])
    for length in (20, 33, 34, 47, 60):
        window = tokens[:length] if length <= 33 else tokens[:4] + tokens[length - 29 : length]
        expected = reference_logits(directory, window, sliding_window=None)[-1]
        assert relative_l2(logits[length - 20], expected) < 2e-5


@pytest.mark.parametrize(
    ("variant", "scheme", "tolerance"),
    [
        ("llama-tied", "q4f32_1", 2e-5),
        ("gpt_neox", "q4f32_1", 2e-5),
        ("qwen2", "q4f16_0", 1e-2),
        ("qwen3-tied", "q3f16_1", 1e-2),
        ("llama-bias", "q4f16_2", 1e-2),
    ],
)
def test_packed_weights_give_the_logits_of_the_dequantized(variant: str, scheme: str, tolerance: float) -> None:
    directory = cached_checkpoint(variant)
    library = GenericLibrary(directory, scheme, functions=ONE_SEQUENCE)
    expected = reference_logits(directory, PROMPT + FOLLOWING, scheme)[len(PROMPT) - 1 :]
    tails(library.generate(PROMPT, FOLLOWING), expected, tolerance)
