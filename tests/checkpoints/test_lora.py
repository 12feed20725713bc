"""Merging PEFT adapters against peft's own merge_and_unload, and adapters that cannot be merged."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from llmbuild.checkpoints import patterns
from llmbuild.checkpoints.lora import MergedCheckpoint, Pair
from llmbuild.errors import InputError, LlmbuildError
from llmbuild.models.open import open_checkpoint
from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.replaced_parts import mutations

OPTIONS = {
    "plain": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "rslora": {"r": 4, "lora_alpha": 16, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 6},
        "alpha_pattern": {"k_proj": 3},
    },
    "head replaced": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


def make_adapter(directory, variant="llama-gqa", *, safe=True, seed=3, **options):
    """Save a random adapter and return the merged model's state dict, both by peft."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(reference_model(cached_checkpoint(variant)), LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(directory, safe_serialization=safe)
    if not safe:
        stored = directory / "adapter_model.safetensors"
        if stored.is_file():
            torch.save(
                {key: torch.from_numpy(value) for key, value in load_file(stored).items()},
                directory / "adapter_model.bin",
            )
            stored.unlink()
    return model.merge_and_unload().state_dict()


def merged_with(adapter, variant="llama", *, source=None):
    """The checkpoint with an adapter merged; untied unless its configuration says otherwise."""
    base = open_checkpoint(source or cached_checkpoint(variant))
    neox = base.config["model_type"] == "gpt_neox"
    names = (
        ("gpt_neox.embed_in.weight", "embed_out.weight") if neox else ("model.embed_tokens.weight", "lm_head.weight")
    )
    return MergedCheckpoint(base, adapter, Pair(*names, bool(base.config["tie_word_embeddings"])))


def check(adapter, merged, variant="llama-gqa"):
    with merged_with(adapter, variant) as checkpoint:
        for name, info in checkpoint.tensors.items():
            value = checkpoint.read(name)
            assert str(value.dtype) == info.dtype
            assert np.abs(value - merged[name].numpy()).max() <= 1e-6, name


@pytest.mark.parametrize("case", OPTIONS)
def test_merges_as_peft_does(tmp_path, case):
    check(tmp_path, make_adapter(tmp_path, **OPTIONS[case]))


def test_merges_a_torch_adapter(tmp_path):
    merged = make_adapter(tmp_path, safe=False, **OPTIONS["plain"])
    assert (tmp_path / "adapter_model.bin").is_file()
    check(tmp_path, merged)


def test_merges_fused_layers_of_gpt_neox(tmp_path):
    merged = make_adapter(tmp_path, "gpt_neox", r=4, lora_alpha=8, target_modules=["query_key_value", "dense"])
    with merged_with(tmp_path, "gpt_neox") as checkpoint:
        for name in ("query_key_value", "dense"):
            tensor = f"gpt_neox.layers.1.attention.{name}.weight"
            assert np.abs(checkpoint.read(tensor) - merged[tensor].numpy()).max() <= 1e-6


def hand_made(directory, config=None, tensors=None):
    """An adapter of one module, by hand, with some of its configuration or tensors replaced."""
    random = np.random.default_rng(1)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    directory.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **(config or {})}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    values = {
        f"{module}.lora_A.weight": random.standard_normal((4, 128)).astype(np.float32),
        f"{module}.lora_B.weight": random.standard_normal((128, 4)).astype(np.float32),
    }
    for name, value in (tensors or {}).items():
        values[name] = value
    save_file(
        {name: value for name, value in values.items() if value is not None}, directory / "adapter_model.safetensors"
    )
    return values[f"{module}.lora_A.weight"], values[f"{module}.lora_B.weight"]


QPROJ = "model.layers.0.self_attn.q_proj.weight"


def test_fan_in_fan_out_means_nothing_for_a_linear_layer(tmp_path):
    """As in peft, which knows the layer."""
    a, b = hand_made(tmp_path, {"fan_in_fan_out": True})
    with open_checkpoint(cached_checkpoint("llama")) as base:
        weight = base.read(QPROJ)
    with merged_with(tmp_path) as checkpoint:
        assert np.allclose(checkpoint.read(QPROJ), weight + 2 * (b @ a), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(tmp_path, dtype):
    a, b = hand_made(tmp_path)
    source = cached_checkpoint("llama", dtype=dtype)
    with open_checkpoint(source) as base:
        weight = base.read(QPROJ)
    with merged_with(tmp_path, source=source) as checkpoint:
        value = checkpoint.read(QPROJ)
    assert value.dtype == weight.dtype
    assert np.array_equal(value, (weight.astype(np.float32) + (b * np.float32(2)) @ a).astype(weight.dtype))


X = "base_model.model.model.layers.0.self_attn.q_proj"
ONES = np.ones((4, 128), np.float32)
BROKEN = {
    "another kind": ({"peft_type": "IA3"}, None, "kind 'IA3'"),
    "DoRA": ({"use_dora": True}, None, "magnitudes of DoRA"),
    "magnitudes": ({"use_dora": True}, {f"{X}.lora_magnitude_vector": np.ones(64, np.float32)}, "the magnitudes of"),
    "biases": ({"bias": "some"}, None, "'some' is none of"),
    "a bias that is not there": (
        None,
        {f"{X}.lora_B.bias": np.ones(128, np.float32)},
        "a bias that the model does not",
    ),
    "rows that nothing names": (
        None,
        {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones((1, 128), np.float32)},
        "does not name the rows",
    ),
    "rows beyond the embedding": (
        {"trainable_token_indices": [320]},
        {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones((1, 128), np.float32)},
        "rows of 'model.embed_tokens.weight' that the model does not have",
    ),
    "saved modules": ({"modules_to_save": [4]}, None, "not a list of names"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, None, "alters the base"),
    "replicated layers": ({"layer_replication": [[0, 2]]}, None, "number of layers"),
    "activated": ({"alora_invocation_tokens": [1]}, None, "activated"),
    "rank": ({"r": 8}, None, "has rank 4 and adapter_config.json says 8"),
    "alpha": ({"lora_alpha": "much"}, None, "'much' is not a number"),
    "pattern": ({"rank_pattern": {"(": 4}}, None, "not a regular expression"),
    "pattern of any size": ({"rank_pattern": {"a{99999999999}": 4}}, None, "not a regular expression"),
    "alpha of many digits": ({"lora_alpha": 10**299 * 10**99}, None, "digits"),
    "pattern list": ({"rank_pattern": [4]}, None, "not an object"),
    "half a pair": (None, {f"{X}.lora_B.weight": None}, "only one of"),
    "shapes": (None, {f"{X}.lora_B.weight": ONES}, "factors of shapes"),
    "integers": (None, {f"{X}.lora_A.weight": ONES.astype(np.int32)}, "is int32, which no weight is"),
    "wrong size": (None, {f"{X}.lora_A.weight": np.ones((4, 64), np.float32)}, "of shape [128, 64]"),
    "embedding": (None, {"base_model.model.model.embed_tokens.lora_embedding_A": ONES}, "only one of lora_embedding_A"),
    "another part": (None, {f"{X}.lora_C.weight": ONES}, "cannot be merged"),
    "no such module": (
        None,
        {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": ONES}
        | {"base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight": ONES.T.copy()},
        "which the model does not have",
    ),
    "no such replacement": (None, {"base_model.model.score.weight": ONES}, "which the model does not have"),
    "replacement of another shape": (None, {"base_model.model.lm_head.weight": ONES}, "which is not the model's"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_adapters_that_cannot_be_merged_are_explained(tmp_path, case):
    config, tensors, message = BROKEN[case]
    hand_made(tmp_path, config, tensors)
    with pytest.raises(InputError) as caught:
        merged_with(tmp_path)
    assert message in str(caught.value)


def test_patterns_that_take_too_long_are_refused_by_their_key(tmp_path, monkeypatch):
    monkeypatch.setattr(patterns, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(patterns, "WALL_SECONDS", 0.1)
    hand_made(tmp_path, {"alpha_pattern": {"(q|k)_proj": 4}})
    with pytest.raises(InputError, match="cannot be merged") as caught:
        merged_with(tmp_path)
    assert caught.value.exit_code == 3
    assert "adapter_config.json: alpha_pattern" in str(caught.value)


def test_missing_files_are_explained(tmp_path):
    hand_made(tmp_path / "a")
    hand_made(tmp_path / "b")
    (tmp_path / "a" / "adapter_config.json").unlink()
    (tmp_path / "b" / "adapter_model.safetensors").unlink()
    for name, message in (
        ("a", "no adapter_config.json"),
        ("b", "neither adapter_model.safetensors"),
        ("c", "no adapter_conf"),
    ):
        with pytest.raises(InputError, match=message):
            merged_with(tmp_path / name)
    shutil.rmtree(tmp_path / "a")


def test_any_value_in_any_place_is_taken_or_refused(tmp_path):
    hand_made(tmp_path, {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"k_proj": 3}, "use_rslora": True})
    path = tmp_path / "adapter_config.json"
    for value in mutations(json.loads(path.read_text())):
        path.write_text(json.dumps(value))
        with contextlib.suppress(LlmbuildError):
            merged_with(tmp_path).close()
