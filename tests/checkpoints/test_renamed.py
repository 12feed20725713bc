"""Names with a prefix too many or without the model's own: the same tensors as those of the plain names."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmbuild.checkpoints.renamed import renamed
from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.open import open_checkpoint
from llmbuild.models.registry import family
from tests.helpers.checkpoints import CONFIGS, cached_checkpoint


@pytest.fixture
def saved(tmp_path):
    """Writes the checkpoint of a variant with its tensors changed by a function."""

    def save(variant, change):
        source = cached_checkpoint(variant)
        (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
        save_file(change(load_file(source / "model.safetensors")), tmp_path / "model.safetensors")
        return tmp_path

    return save


def read(directory):
    """The tensors by the names that the model wants, and the notes."""
    notes = []
    with open_checkpoint(directory) as plain:
        architecture = family(plain.config["model_type"])
        config = architecture.configure(plain.config, Overrides())
        wanted = [source for parameter in architecture.parameters(config) for source in parameter.sources]
        checkpoint = renamed(plain, wanted, notes.append)
        assert all(checkpoint.location(name) == "model.safetensors" for name in checkpoint.tensors)
        assert all(info.name == name for name, info in checkpoint.tensors.items())
        return {name: checkpoint.read(name) for name in checkpoint.tensors}, notes


def prefixed(prefix):
    return lambda tensors: {prefix + name: value for name, value in tensors.items()}


def replaced(old, new):
    return lambda tensors: {name.replace(old, new, 1): value for name, value in tensors.items()}


WAYS = {
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("_orig_mod.module."),
    "peft": prefixed("base_model.model."),
    "doubled": prefixed("{root}."),
    "anything": prefixed("student.net."),
    "Lightning": prefixed("model."),
    "a language model by itself": prefixed("language_model."),
    "a language model inside": replaced("{root}.", "{root}.language_model."),
    "the inner model": replaced("{root}.", ""),
    "the inner model in a wrapper": lambda tensors: {
        f"module.{name.removeprefix('{root}.')}": value for name, value in tensors.items()
    },
    "layers of FSDP": lambda tensors: {
        ".".join([*name.split(".")[:3], "_fsdp_wrapped_module", *name.split(".")[3:]])
        if ".layers." in name
        else name: value
        for name, value in tensors.items()
    },
}


@pytest.mark.parametrize("variant", ["llama-tied", "llama-bias", "gpt_neox"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_naming(saved, variant, way):
    root = "gpt_neox" if variant == "gpt_neox" else "model"
    wanted = load_file(cached_checkpoint(variant) / "model.safetensors")

    def change(tensors):
        ours = {name.replace(root, "{root}", 1): value for name, value in tensors.items()}
        return {name.replace("{root}", root): value for name, value in WAYS[way](ours).items()}

    tensors, notes = read(saved(variant, change))
    assert tensors.keys() == wanted.keys()
    assert all(np.array_equal(tensors[name], wanted[name]) for name in wanted)
    assert len(notes) == 1
    assert "tensors are read under the names that the model has for them" in notes[0]


def test_transformers_reads_the_inner_model_so(saved, tmp_path):
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    AutoModel.from_pretrained(cached_checkpoint("llama-tied"), dtype=torch.float32).save_pretrained(tmp_path)
    state = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    tensors, notes = read(tmp_path)
    assert len(notes) == 1
    assert set(tensors) == set(state) - {"lm_head.weight"}
    assert all(np.array_equal(tensors[name], state[name].numpy()) for name in tensors)


def vision(tensors):
    return {
        f"vision_tower.vision_model.encoder.layers.0.self_attn.{one}_proj.weight": tensors["model.norm.weight"]
        for one in "qkv"
    }


def test_the_other_half_of_a_model_keeps_its_names(saved):
    change = replaced("model.", "model.language_model.")
    tensors, notes = read(saved("llama", lambda tensors: change(tensors) | vision(tensors)))
    assert len(notes) == 1
    assert set(tensors) == {
        *load_file(cached_checkpoint("llama") / "model.safetensors"),
        *vision({"model.norm.weight": 0}),
    }


def test_plain_names_are_left_alone(saved):
    for change in (lambda tensors: tensors, lambda tensors: tensors | vision(tensors)):
        tensors, notes = read(saved("llama", change))
        assert not notes
        assert "model.norm.weight" in tensors
    # Nothing like the model's names: the list of tensors says so.
    tensors, notes = read(saved("llama", lambda tensors: {f"x{n}": value for n, value in enumerate(tensors.values())}))
    assert not notes
    assert "x0" in tensors


@pytest.mark.parametrize("prefixes", [("actor.", "critic."), ("module.", "_orig_mod."), ("", "module.")])
def test_two_models_in_one_checkpoint(saved, prefixes):
    first, second = (prefixed(prefix) for prefix in prefixes)

    def change(tensors):
        return {**first(tensors), **second(tensors)}

    directory = saved("llama", change)
    if "" in prefixes:
        # The model's own names are there, so there is nothing to read in another way.
        assert not read(directory)[1]
        return
    with pytest.raises(InputError, match="can be read in several ways") as caught:
        read(directory)
    assert len(str(caught.value).splitlines()) <= 4


def test_one_tensor_that_is_missing_is_left_to_the_list_of_tensors(saved):
    def change(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        return prefixed("module.")(tensors)

    tensors, notes = read(saved("llama", change))
    assert len(notes) == 1
    assert "model.layers.1.mlp.up_proj.weight" not in tensors
    assert set(tensors) >= {"model.norm.weight", "lm_head.weight"}
    assert CONFIGS["llama"]["num_hidden_layers"] == 2
