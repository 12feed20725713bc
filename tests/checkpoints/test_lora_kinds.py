"""Adapters of many kinds, saved by peft, against the merge that peft makes of the same files: every tensor."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.engine.kind import Job, no_note, no_progress
from llmbuild.errors import InputError
from llmbuild.tasks.inspect import KIND as INSPECT
from llmbuild.tasks.weights import open_weights

pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
FEW, LINEAR = ["q_proj", "v_proj"], "all-linear"
EMBED, HEAD, BOTH = ["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]
QKV = ["query_key_value"]

MERGED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain": ("llama", {"target_modules": FEW}),
    "one layer": ("llama", {"target_modules": FEW, "layers_to_transform": [1], "layers_pattern": "layers"}),
    "every linear layer": ("llama", {"target_modules": LINEAR}),
    "a regular expression": ("llama", {"target_modules": r".*layers\.1\..*(up|down)_proj"}),
    "rank-stabilized": ("llama", {"target_modules": LINEAR, "use_rslora": True, "r": 3}),
    "ranks": ("llama", {"target_modules": FEW, "rank_pattern": {"q_proj": 4}}),
    "alphas": ("llama", {"target_modules": FEW, "alpha_pattern": {"layers.1.self_attn.v_proj": 9}}),
    "fan_in_fan_out": ("llama", {"target_modules": FEW, "fan_in_fan_out": True}),
    "dropout": ("llama", {"target_modules": FEW, "lora_dropout": 0.1}),
    "gaussian start": ("llama", {"target_modules": FEW, "init_lora_weights": "gaussian"}),
    "DoRA": ("llama", {"target_modules": FEW, "use_dora": True}),
    "DoRA everywhere": ("llama", {"target_modules": LINEAR, "use_dora": True, "use_rslora": True}),
    "DoRA of the embedding": ("llama", {"target_modules": ["q_proj", *EMBED], "use_dora": True}),
    "DoRA of the head": ("llama", {"target_modules": ["q_proj", *HEAD], "use_dora": True}),
    "biases of LoRA": ("qwen2", {"target_modules": FEW, "lora_bias": True}),
    "all biases": ("qwen2", {"target_modules": FEW, "bias": "all"}),
    "some biases": ("qwen2", {"target_modules": FEW, "bias": "lora_only"}),
    "a saved norm": ("llama", {"target_modules": FEW, "modules_to_save": ["norm"]}),
    "a saved layer": ("llama", {"target_modules": FEW, "modules_to_save": ["down_proj"]}),
    "a saved block": ("llama", {"target_modules": ["down_proj"], "modules_to_save": ["self_attn"]}),
    "factors of the head": ("llama", {"target_modules": ["q_proj", *HEAD]}),
    "factors of the head alone": ("llama", {"target_modules": HEAD, "save": False}),
    "factors of the embedding": ("llama", {"target_modules": EMBED}),
    "factors of the embedding, no copy": ("llama", {"target_modules": ["k_proj", *EMBED], "save": False}),
    "factors of both": ("llama", {"target_modules": ["q_proj", *BOTH], "use_rslora": True}),
    "ranks of both": ("llama", {"target_modules": BOTH, "rank_pattern": {"lm_head": 5, "embed_tokens": 3}}),
    "a saved head": ("llama", {"target_modules": FEW, "modules_to_save": HEAD}),
    "a saved embedding": ("llama", {"target_modules": FEW, "modules_to_save": EMBED}),
    "both saved": ("llama", {"target_modules": FEW, "modules_to_save": BOTH}),
    "copies of both": ("llama", {"target_modules": FEW, "save": True}),
    "saved, to be tied, of an untied base": (
        "llama",
        {"target_modules": FEW, "modules_to_save": EMBED, "ensure_weight_tying": True},
    ),
    "rows": ("llama", {"target_modules": FEW, "trainable_token_indices": [7, 3]}),
    "rows of both": (
        "llama",
        {"target_modules": FEW, "trainable_token_indices": {"embed_tokens": [7, 3], "lm_head": [1]}},
    ),
    "a saved head, with copies of both": ("llama", {"target_modules": FEW, "modules_to_save": HEAD, "save": True}),
    "rows, with copies of both": ("llama", {"target_modules": FEW, "trainable_token_indices": [7, 3], "save": True}),
    "tied: a saved head, with copies of both": (
        "llama tied",
        {"target_modules": FEW, "modules_to_save": HEAD, "save": True},
    ),
    "tied: a saved embedding, with copies of both": (
        "llama tied",
        {"target_modules": FEW, "modules_to_save": EMBED, "save": True},
    ),
    "tied: plain": ("llama tied", {"target_modules": LINEAR}),
    "tied: a saved head": ("llama tied", {"target_modules": FEW, "modules_to_save": HEAD}),
    "tied: a saved embedding": ("llama tied", {"target_modules": FEW, "modules_to_save": EMBED}),
    "tied: both saved": ("llama tied", {"target_modules": FEW, "modules_to_save": BOTH}),
    "tied: an embedding to be tied": (
        "llama tied",
        {"target_modules": FEW, "modules_to_save": EMBED, "ensure_weight_tying": True},
    ),
    "tied: a head to be tied": (
        "llama tied",
        {"target_modules": FEW, "modules_to_save": HEAD, "ensure_weight_tying": True},
    ),
    "tied: copies of both": ("llama tied", {"target_modules": FEW, "save": True}),
    "tied: factors of the head": ("llama tied", {"target_modules": ["q_proj", *HEAD]}),
    "tied: factors of the head, no copy": ("llama tied", {"target_modules": HEAD, "save": False}),
    "tied: factors of the head, all copied": ("llama tied", {"target_modules": HEAD, "save": True}),
    "tied: factors of the embedding": ("llama tied", {"target_modules": EMBED}),
    "tied: factors of the embedding, no copy": ("llama tied", {"target_modules": EMBED, "save": False}),
    "tied: factors of the embedding, all copied": ("llama tied", {"target_modules": EMBED, "save": True}),
    "tied: factors of both": ("llama tied", {"target_modules": BOTH, "rank_pattern": {"lm_head": 5}}),
    "tied: factors of both, no copy": ("llama tied", {"target_modules": BOTH, "save": False}),
    "tied: DoRA of the head": ("llama tied", {"target_modules": HEAD, "use_dora": True}),
    "tied: DoRA of the embedding": ("llama tied", {"target_modules": EMBED, "use_dora": True}),
    "tied: DoRA of both": ("llama tied", {"target_modules": BOTH, "use_dora": True}),
    "tied: factors of the embedding, a saved head": ("llama tied", {"target_modules": EMBED, "modules_to_save": HEAD}),
    "tied: factors of the head, a saved embedding": ("llama tied", {"target_modules": HEAD, "modules_to_save": EMBED}),
    "tied: rows": ("llama tied", {"target_modules": FEW, "trainable_token_indices": [7, 3]}),
    "gpt_neox": ("gpt_neox", {"target_modules": [*QKV, "dense", "dense_h_to_4h"]}),
    "gpt_neox: factors of the head": ("gpt_neox", {"target_modules": [*QKV, *HEAD]}),
    "gpt_neox: factors of the embedding": ("gpt_neox", {"target_modules": ["embed_in"]}),
    "gpt_neox: ranks": ("gpt_neox", {"target_modules": [*QKV, *HEAD], "rank_pattern": {"lm_head": 5}}),
    "gpt_neox: a saved head": ("gpt_neox", {"target_modules": QKV, "modules_to_save": HEAD}),
    "gpt_neox: a saved embedding": ("gpt_neox", {"target_modules": QKV, "modules_to_save": ["embed_in"]}),
    "gpt_neox: all biases": ("gpt_neox", {"target_modules": QKV, "bias": "all"}),
    "gpt_neox: DoRA and biases": ("gpt_neox", {"target_modules": QKV, "use_dora": True, "bias": "lora_only"}),
    "gpt_neox tied: a saved embedding": ("gpt_neox tied", {"target_modules": QKV, "modules_to_save": ["embed_in"]}),
    "gpt_neox tied: a saved head": ("gpt_neox tied", {"target_modules": QKV, "modules_to_save": HEAD}),
    "gpt_neox tied: factors of the head": ("gpt_neox tied", {"target_modules": [*QKV, *HEAD]}),
    "gpt_neox tied: factors of the embedding": ("gpt_neox tied", {"target_modules": ["embed_in"]}),
    "gpt_neox tied: DoRA of both": ("gpt_neox tied", {"target_modules": ["embed_in", *HEAD], "use_dora": True}),
    "gpt_neox tied: factors of the head, a saved embedding": (
        "gpt_neox tied",
        {"target_modules": HEAD, "modules_to_save": ["embed_in"]},
    ),
    "mistral": ("mistral", {"target_modules": LINEAR}),
    "qwen3": ("qwen3", {"target_modules": LINEAR, "modules_to_save": ["q_norm"]}),
}

REFUSED: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "tied: factors of the embedding to be tied": (
        "llama tied",
        {"target_modules": EMBED, "ensure_weight_tying": True},
        "adds them twice",
    ),
    "tied: factors of the head to be tied": (
        "llama tied",
        {"target_modules": HEAD, "ensure_weight_tying": True},
        "adds them twice",
    ),
    "tied: rows of both": (
        "llama tied",
        {"target_modules": FEW, "trainable_token_indices": {"embed_tokens": [7, 3], "lm_head": [1]}},
        "one tensor in the model",
    ),
    "biases of LoRA that the model does not have": (
        "llama",
        {"target_modules": FEW, "lora_bias": True},
        "a bias that the model does not have",
    ),
    "QA-LoRA": (
        "llama",
        {"target_modules": ["down_proj"], "use_qalora": True, "qalora_group_size": 8},
        "pools the input",
    ),
    "parameters": ("llama", {"target_modules": FEW, "target_parameters": ["down_proj.weight"]}, "target_parameters"),
    "PiSSA": ("llama", {"target_modules": FEW, "init_lora_weights": "pissa"}, "alters the base"),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random checkpoint of each kind, as transformers saves it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made: dict[str, Path] = {}
    for name in dict.fromkeys(base for base, *_ in (*MERGED.values(), *REFUSED.values())):
        model_type, *tied = name.split()
        torch.manual_seed(1)
        extra = {} if model_type == "gpt_neox" else {"num_key_value_heads": 1}
        config = AutoConfig.for_model(model_type, **SIZES, **extra, tie_word_embeddings=bool(tied))
        made[name] = tmp_path_factory.mktemp("bases") / name.replace(" ", "-")
        AutoModelForCausalLM.from_config(config).save_pretrained(made[name])
    return made


def make_adapter(base: Path, directory: Path, *, save: bool | str = "auto", **options: Any) -> None:
    """A random adapter, as peft saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": 2, "lora_alpha": 4, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    # peft adds to the lists that it is given.
    config = LoraConfig(**copy.deepcopy({**settings, **options}))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(directory, save_embedding_layers=save)


def merged_by_peft(base: Path, adapter: Path) -> tuple[dict[str, np.ndarray], bool]:
    """The merged model's tensors by the names of files, and whether head and embedding are one."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    values = {name: value.numpy() for name, value in model.state_dict().items()}
    if model.config.model_type == "gpt_neox":
        values["embed_out.weight"] = values.pop("lm_head.weight")
    one = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    return values, one


def job_of(base: Path, adapter: Path, out: Path) -> Job:
    out.mkdir()
    params = {"model-type": None, "ignore-keys": [], "source-format": None}
    return Job(params, {"checkpoint": base, "adapter": adapter}, {}, out, out, no_progress, note=no_note)


@pytest.mark.parametrize("case", MERGED)
def test_every_tensor_is_that_of_peft(bases: dict[str, Path], tmp_path: Path, case: str) -> None:
    base, options = MERGED[case]
    make_adapter(bases[base], tmp_path / "adapter", **options)
    wanted, one = merged_by_peft(bases[base], tmp_path / "adapter")
    job = job_of(bases[base], tmp_path / "adapter", tmp_path / "out")
    INSPECT.run(job)
    facts = json.loads((tmp_path / "out/facts.json").read_text())["config"]
    tied = facts.get("tie_word_embeddings", "tied" in base)
    assert tied is one
    with open_weights(job) as checkpoint:
        names = wanted.keys() - ({"lm_head.weight", "embed_out.weight"} if tied else set())
        assert checkpoint.tensors.keys() - {"lm_head.weight", "embed_out.weight"} == names - {
            "lm_head.weight",
            "embed_out.weight",
        }
        for name in names:
            assert np.abs(checkpoint.read(name) - wanted[name]).max() <= 1e-6, name


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why_and_what_to_do(bases: dict[str, Path], tmp_path: Path, case: str) -> None:
    base, options, why = REFUSED[case]
    make_adapter(bases[base], tmp_path / "adapter", **options)
    with pytest.raises(InputError) as caught:
        INSPECT.run(job_of(bases[base], tmp_path / "adapter", tmp_path / "out"))
    assert why in str(caught.value) and "merge_and_unload" in str(caught.value)


def test_factors_of_a_tied_pair_are_noted(bases: dict[str, Path], tmp_path: Path) -> None:
    notes: list[str] = []
    make_adapter(bases["llama tied"], tmp_path / "adapter", target_modules=HEAD)
    with open_weights(job_of(bases["llama tied"], tmp_path / "adapter", tmp_path / "out"), note=notes.append):
        assert len(notes) == 1 and "they change both, as in peft's" in notes[0]


def test_two_copies_of_a_tied_base_that_differ_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    make_adapter(bases["llama tied"], tmp_path / "adapter", target_modules=BOTH)
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.lm_head.base_layer.weight"] += 1
    save_file(tensors, file)
    with pytest.raises(InputError, match="two values for head and embedding"):
        open_weights(job_of(bases["llama tied"], tmp_path / "adapter", tmp_path / "out"))


def test_a_copy_of_the_base_that_differs_is_the_base(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.lm_head.base_layer.weight"] += 1
    save_file(tensors, file)
    wanted, _ = merged_by_peft(bases["llama"], tmp_path / "adapter")
    with open_weights(job_of(bases["llama"], tmp_path / "adapter", tmp_path / "out")) as checkpoint:
        assert np.abs(checkpoint.read("lm_head.weight") - wanted["lm_head.weight"]).max() <= 1e-6


def test_two_values_for_one_tensor_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    make_adapter(bases["llama tied"], tmp_path / "adapter", target_modules=["q_proj"], save=True)
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.lm_head.weight"] = tensors["base_model.model.model.embed_tokens.weight"] + 1
    save_file(tensors, file)
    with pytest.raises(InputError, match="two values for head and embedding"):
        open_weights(job_of(bases["llama tied"], tmp_path / "adapter", tmp_path / "out"))


def test_an_adapter_of_gpt_neox_with_the_head_under_its_older_name(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    make_adapter(bases["gpt_neox"], tmp_path / "adapter", target_modules=[*QKV, "lm_head"])
    wanted, _ = merged_by_peft(bases["gpt_neox"], tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file({name.replace("lm_head", "embed_out"): value for name, value in load_file(file).items()}, file)
    with open_weights(job_of(bases["gpt_neox"], tmp_path / "adapter", tmp_path / "out")) as checkpoint:
        assert np.abs(checkpoint.read("embed_out.weight") - wanted["embed_out.weight"]).max() <= 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [("target_modules", ["q_proj"]), ("exclude_modules", ["v_proj"]), ("layers_to_transform", [1])],
)
def test_factors_that_peft_passes_over_are_refused(
    bases: dict[str, Path], tmp_path: Path, key: str, value: list[Any]
) -> None:
    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=FEW)
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match="which peft passes over") as caught:
        open_weights(job_of(bases["llama"], tmp_path / "adapter", tmp_path / "out"))
    assert key in str(caught.value)


def test_names_that_peft_does_not_read_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=FEW)
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file({name.removeprefix("base_model.model."): value for name, value in load_file(file).items()}, file)
    with pytest.raises(InputError, match="peft reads no other"):
        open_weights(job_of(bases["llama"], tmp_path / "adapter", tmp_path / "out"))
