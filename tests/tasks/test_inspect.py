"""The inspect task: what the tensors say, against what transformers makes of the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.canonical import Json
from llmbuild.engine.kind import Job, no_progress
from llmbuild.errors import InputError, LlmbuildError
from llmbuild.models.registry import families
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.inspect import KIND
from llmbuild.tasks.quantize import KIND as QUANTIZE
from tests.helpers.changed import copy_with
from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.reference_quant import read_weights
from tests.helpers.variants import SHARED, variants, write_checkpoint

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")
HEADS = {"gpt_neox": "embed_out.weight"}
EMBEDDINGS = {"gpt_neox": "gpt_neox.embed_in.weight"}


def head_of(family: str) -> str:
    return HEADS.get(family, "lm_head.weight")


def embedding_of(family: str) -> str:
    return EMBEDDINGS.get(family, "model.embed_tokens.weight")


def inspect(checkpoint: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """The facts of a checkpoint, and the notes."""
    out.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    params: dict[str, Json] = {"model-type": None, "ignore-keys": [], "source-format": None}
    KIND.run(Job(params, {"checkpoint": checkpoint}, {}, out, out, no_progress, note=notes.append))
    facts: dict[str, Any] = json.loads((out / "facts.json").read_text())
    assert list(facts) == ["config", "model_type"]
    return facts["config"], notes


def quantized(checkpoint: Path, out: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]]:
    """The stored tensors of a q0f32 build with exact float32, with the facts and all notes."""
    facts, notes = inspect(checkpoint, out / "facts")
    (out / "weights").mkdir()
    params: dict[str, Json] = {
        "scheme": SCHEMES["q0f32"].to_json(),
        "method": "round",
        "model-type": None,
        "ignore-keys": [],
        "source-format": None,
        "float32": "exact",
    }
    inputs = {"checkpoint": checkpoint, "facts": out / "facts/facts.json"}
    QUANTIZE.run(Job(params, inputs, {}, out / "weights", out, no_progress, note=notes.append))
    return read_weights(out / "weights")[0], facts, notes


def assert_pair_is_that_of_transformers(
    checkpoint: Path, stored: dict[str, np.ndarray], family: str, *, kept: bool = False
) -> None:
    """`kept` says whether a tied head is stored as well."""
    model = reference_model(checkpoint)
    wanted = {
        embedding_of(family): model.get_input_embeddings().weight,
        head_of(family): model.get_output_embeddings().weight,
    }
    for name, value in wanted.items():
        found = stored.get(name, stored[embedding_of(family)])
        assert np.array_equal(found, value.detach().numpy()), name
    tied = wanted[embedding_of(family)].data_ptr() == wanted[head_of(family)].data_ptr()
    assert (head_of(family) in stored) is (kept or not tied)


def random_head(like: np.ndarray) -> np.ndarray:
    value: np.ndarray = np.random.default_rng(5).standard_normal(like.shape).astype(np.float32)
    return value


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_head_that_differs_is_used(tmp_path: Path, family: str) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[head_of(family)] = random_head(tensors[embedding_of(family)])

    checkpoint = copy_with(cached_checkpoint(family), tmp_path / "in", change, tie_word_embeddings=True)
    stored, facts, notes = quantized(checkpoint, tmp_path)
    assert facts == {"tie_word_embeddings": False}
    assert len(notes) == 1 and "tie_word_embeddings" in notes[0] and head_of(family) in notes[0]
    assert_pair_is_that_of_transformers(checkpoint, stored, family)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_the_weights_is_noted(tmp_path: Path, file: str) -> None:
    checkpoint = copy_with(cached_checkpoint("llama"), tmp_path / "in")
    assert inspect(checkpoint, tmp_path / "before") == ({}, [])
    (checkpoint / file).write_bytes(b"")
    facts, notes = inspect(checkpoint, tmp_path / "after")
    assert (
        facts == {} and len(notes) == 1 and file in notes[0] and "name its directory as the model's adapter" in notes[0]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_an_equal_stored_head_stays_tied(tmp_path: Path, family: str) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[head_of(family)] = tensors[embedding_of(family)].copy()

    checkpoint = copy_with(cached_checkpoint(family), tmp_path / "in", change, tie_word_embeddings=True)
    stored, facts, notes = quantized(checkpoint, tmp_path)
    # MLC's module of some families has a head of its own in any case.
    kept = families()[family].keeps_head
    assert (facts, notes) == ({"tie_word_embeddings": False} if kept else {}, [])
    assert_pair_is_that_of_transformers(checkpoint, stored, family, kept=kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_heads_name_alone_serves_as_the_embedding(tmp_path: Path, family: str) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors.pop(head_of(family), None)
        tensors[head_of(family)] = tensors.pop(embedding_of(family))

    checkpoint = copy_with(cached_checkpoint(family), tmp_path / "in", change, tie_word_embeddings=True)
    stored, facts, _ = quantized(checkpoint, tmp_path)
    assert facts == {}
    assert_pair_is_that_of_transformers(checkpoint, stored, family)


def test_gpt2_as_it_was_published(tmp_path: Path) -> None:
    """Names without the model's own prefix, masks, and one table for embedding and head."""
    write_checkpoint(tmp_path / "in", variants()["gpt2/gpt2"])

    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for layer in range(2):
            tensors[f"h.{layer}.attn.bias"] = np.tri(64, dtype=np.float32)[None, None]

    checkpoint = copy_with(tmp_path / "in", tmp_path / "published", change)
    stored, facts, notes = quantized(checkpoint, tmp_path)
    assert facts == {}
    assert len(notes) == 1 and "read under the names that the model has for them" in notes[0]
    assert np.array_equal(stored["lm_head.weight"], stored["transformer.wte.weight"])
    assert stored["transformer.h.0.attn.c_attn.weight"].shape == (192, 64)
    names = list(stored)
    assert names.index("lm_head.weight") + 1 == names.index("transformer.wte.weight")


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_of_gpt_neox_under_its_name_in_memory(tmp_path: Path, tied: bool) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = tensors.pop("embed_out.weight")

    checkpoint = copy_with(cached_checkpoint("gpt_neox"), tmp_path / "in", change, tie_word_embeddings=tied)
    stored, facts, _ = quantized(checkpoint, tmp_path)
    assert facts == ({"tie_word_embeddings": False} if tied else {})
    assert_pair_is_that_of_transformers(checkpoint, stored, "gpt_neox")


def test_two_heads_that_differ_are_refused_and_equal_ones_are_one(tmp_path: Path) -> None:
    def equal(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = tensors["embed_out.weight"].copy()

    checkpoint = copy_with(cached_checkpoint("gpt_neox"), tmp_path / "equal", equal)
    assert_pair_is_that_of_transformers(checkpoint, quantized(checkpoint, tmp_path)[0], "gpt_neox")

    def unequal(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = random_head(tensors["embed_out.weight"])

    with pytest.raises(InputError, match="two heads that differ"):
        inspect(copy_with(cached_checkpoint("gpt_neox"), tmp_path / "unequal", unequal), tmp_path / "out")


def test_an_untied_model_without_a_head_is_refused(tmp_path: Path) -> None:
    checkpoint = copy_with(cached_checkpoint("llama"), tmp_path / "in", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(LlmbuildError, match=r"lm_head\.weight"):
        quantized(checkpoint, tmp_path)


def test_other_number_types_of_equal_values_are_equal(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        half = tensors[embedding_of("llama")].astype(np.float16)
        tensors[embedding_of("llama")] = half.astype(np.float32)
        tensors["lm_head.weight"] = half

    checkpoint = copy_with(cached_checkpoint("llama"), tmp_path / "in", change, tie_word_embeddings=True)
    assert inspect(checkpoint, tmp_path) == ({}, [])


def test_only_what_names_do_not_decide_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbuild.checkpoints.files import WeightFile

    read: list[int] = []
    real = WeightFile.read_array

    def read_array(self: WeightFile, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        read.append(int(np.prod(shape)))
        return real(self, offset, shape, dtype)

    monkeypatch.setattr(WeightFile, "read_array", read_array)
    for variant in ("llama", "llama-tied", "qwen2"):
        inspect(cached_checkpoint(variant), tmp_path / variant)
    assert read == []
    monkeypatch.setattr("llmbuild.checkpoints.tensor.PART_ELEMENTS", 1000)

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = tensors[embedding_of("llama")].copy()

    inspect(
        copy_with(cached_checkpoint("llama"), tmp_path / "in", change, tie_word_embeddings=True), tmp_path / "large"
    )
    assert 800 < max(read) <= 1000


def frequencies_stored(path: Path, factor: float, config: dict[str, Any] | None = None) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    def change(tensors: dict[str, np.ndarray]) -> None:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
        values = model.model.rotary_emb.inv_freq.numpy() * np.float32(factor)
        for layer in range(2):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = values.astype(np.float16)

    copy_with(cached_checkpoint("llama"), path, lambda tensors: None, **(config or {}))
    return copy_with(path, path.with_name("stored"), change)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_a_model_without_any_rope_is_inspected(tmp_path: Path) -> None:
    config = {**SHARED, "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [0, 0]}
    write_checkpoint(tmp_path / "checkpoint", config)
    assert inspect(tmp_path / "checkpoint", tmp_path / "out") == ({}, [])


@pytest.mark.parametrize("config", [{}, {"rope_theta": 500000.0}, {"rope_scaling": LLAMA3}])
def test_stored_frequencies_are_compared_with_the_configuration(tmp_path: Path, config: dict[str, Any]) -> None:
    assert inspect(frequencies_stored(tmp_path / "a/in", 1.0, config), tmp_path / "a") == ({}, [])
    facts, notes = inspect(frequencies_stored(tmp_path / "b/in", 1.02, config), tmp_path / "b")
    assert facts == {} and len(notes) == 1
    assert "layers.1.self_attn.rotary_emb.inv_freq' differ from the frequencies" in notes[0]


@pytest.mark.parametrize(
    "value",
    [np.ones((1, 1, 8, 8), np.bool_), np.zeros(128, np.float32), np.ones((1, 1, 8, 4), np.uint8)],
)
def test_what_is_no_mask_is_not_ignored(tmp_path: Path, value: np.ndarray) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["gpt_neox.layers.0.attention.bias"] = value

    with pytest.raises(InputError, match="is no causal mask"):
        inspect(copy_with(cached_checkpoint("gpt_neox"), tmp_path / "in", change), tmp_path / "out")


def test_a_head_of_another_part_is_not_ignored(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.draft.lm_head.weight"] = tensors["lm_head.weight"].copy()

    with pytest.raises(LlmbuildError, match="unexpected tensor"):
        inspect(copy_with(cached_checkpoint("llama"), tmp_path / "in", change), tmp_path)


NOT_THE_MODELS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "unexpected": (lambda tensors: tensors.update({"router.weight": np.ones(3, np.float32)}), "unexpected tensor 'rou"),
    "missing": (lambda tensors: tensors.pop("model.norm.weight"), r"tensor 'model\.norm\.weight' is missing"),
    "of another shape": (
        lambda tensors: tensors.update({"model.norm.weight": np.ones(3, np.float32)}),
        r"shape mismatch: 'model\.norm\.weight' \[3\]",
    ),
}


@pytest.mark.parametrize("case", NOT_THE_MODELS)
def test_tensors_that_are_not_the_models_are_refused_before_any_other_task(tmp_path: Path, case: str) -> None:
    change, reason = NOT_THE_MODELS[case]
    with pytest.raises(LlmbuildError, match=reason):
        inspect(copy_with(cached_checkpoint("llama"), tmp_path / "in", change), tmp_path)


BIASED = {"attention_bias": True}


def with_biases(tensors: dict[str, np.ndarray], *kinds: str, layers: int = 2) -> None:
    rng = np.random.default_rng(1)
    for layer in range(layers):
        for kind in kinds:
            module = f"model.layers.{layer}.self_attn.{kind}_proj"
            tensors[f"{module}.bias"] = rng.standard_normal(tensors[f"{module}.weight"].shape[0]).astype(np.float32)


@pytest.mark.parametrize("kinds", ["qkv", "qkvo", "qv", ""])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_biases_are_those_that_are_stored(tmp_path: Path, family: str, kinds: str) -> None:
    checkpoint = copy_with(
        cached_checkpoint(family), tmp_path / "in", lambda tensors: with_biases(tensors, *kinds), **BIASED
    )
    stored, facts, notes = quantized(checkpoint, tmp_path)
    assert facts == ({} if kinds else {"attention_bias": False})
    assert len(notes) == (kinds not in ("", "qkvo"))
    model = reference_model(checkpoint)
    for layer, block in enumerate(model.model.layers):
        parts = [getattr(block.self_attn, f"{kind}_proj").bias.detach().numpy() for kind in "qkv"]
        at = f"model.layers.{layer}.self_attn"
        zeros = np.zeros(sum(len(part) for part in parts), np.float32)
        qkv = "c_attn" if family == "qwen3" else "qkv_proj"
        assert np.array_equal(stored.get(f"{at}.{qkv}.bias", zeros), np.concatenate(parts))
        out = block.self_attn.o_proj.bias.detach().numpy()
        assert np.array_equal(stored.get(f"{at}.o_proj.bias", np.zeros_like(out)), out)


def test_a_bias_that_one_layer_lacks_was_lost(tmp_path: Path) -> None:
    checkpoint = copy_with(
        cached_checkpoint("llama"), tmp_path / "in", lambda tensors: with_biases(tensors, *"qkvo", layers=1), **BIASED
    )
    with pytest.raises(LlmbuildError, match=r"layers\.1\.self_attn\..*\.bias"):
        quantized(checkpoint, tmp_path)


ZERO_BIASES = ("model.layers.0.self_attn.q_proj.bias", "lm_head.bias", "model.norm.bias")


def test_biases_of_zeros_that_the_model_does_not_have_are_left_out(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in ZERO_BIASES:
            tensors[name] = np.zeros(len(tensors[name.replace(".bias", ".weight")]), np.float32)

    checkpoint = copy_with(cached_checkpoint("llama"), tmp_path / "in", change)
    stored, facts, notes = quantized(checkpoint, tmp_path)
    assert facts == {} and not any(name.endswith(".bias") for name in stored)
    assert len(notes) == 1 and all(f"'{name}'" in notes[0] for name in ZERO_BIASES)
    assert "are biases of zeros that the model does not have" in notes[0]
    assert_pair_is_that_of_transformers(checkpoint, stored, "llama")


def test_other_biases_that_the_configuration_denies_are_refused_by_the_key(tmp_path: Path) -> None:
    denied = copy_with(cached_checkpoint("llama"), tmp_path / "in", lambda tensors: with_biases(tensors, *"qkvo"))
    with pytest.raises(InputError, match="' and 7 more: biases that the configuration denies") as caught:
        inspect(denied, tmp_path / "out")
    assert "attention_bias = true" in str(caught.value.fix)
    quantized(copy_with(denied, tmp_path / "right", lambda tensors: None, **BIASED), tmp_path)


@pytest.mark.parametrize("shape", [(3,), (64, 1)])
def test_zeros_of_another_shape_are_no_bias(tmp_path: Path, shape: tuple[int, ...]) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.bias"] = np.zeros(shape, np.float32)

    with pytest.raises(LlmbuildError, match=r"unexpected tensor 'model\.norm\.bias'"):
        inspect(copy_with(cached_checkpoint("llama"), tmp_path / "in", change), tmp_path)


def test_qwen2_without_biases_has_zeros(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.endswith(".bias")]:
            del tensors[name]

    stored, facts, notes = quantized(copy_with(cached_checkpoint("qwen2"), tmp_path / "in", change), tmp_path)
    assert facts == {} and "zeros take its place" in notes[0]
    assert not stored["model.layers.1.self_attn.c_attn.bias"].any()
