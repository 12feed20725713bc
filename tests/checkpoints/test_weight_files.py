"""Which files are read as a checkpoint's weights, against transformers, which is given the same directories."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmbuild.checkpoints.weight_files import (
    NAMES,
    choose,
    format_of,
    gguf_models,
    gguf_parts,
    refuse_named_weights,
    unread,
)
from llmbuild.errors import InputError
from llmbuild.models.open import infer_format, open_checkpoint
from tests.helpers.checkpoints import cached_checkpoint

SUFFIX = {"model.safetensors": ".safetensors", "pytorch_model.bin": ".bin"}
PROBE = "model.norm.weight"


@pytest.fixture(scope="module")
def weights():
    return load_file(cached_checkpoint("llama-tied") / "model.safetensors")


@pytest.fixture
def directory(tmp_path):
    for name in ("config.json", "generation_config.json"):
        shutil.copy(cached_checkpoint("llama-tied") / name, tmp_path)
    return tmp_path


def save(path, tensors):
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, metadata={"format": "pt"})


def save_shards(directory, weights, names, index=None):
    """The weights in as many files as there are names."""
    weight_map = {}
    for start, name in enumerate(names):
        part = {key: weights[key].clone() for key in list(weights)[start :: len(names)]}
        save(directory / name, part)
        weight_map |= dict.fromkeys(part, name)
    if index is not None:
        (directory / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def loaded(directory):
    from transformers import AutoModelForCausalLM

    state = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).state_dict()
    return {name: value.numpy() for name, value in state.items() if name != "lm_head.weight"}


def read(directory):
    with open_checkpoint(directory) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.tensors}


def equal(found, wanted):
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "names",
    [
        "model.safetensors-0000{}-of-00002{}",
        "weights-{}{}",
        "pytorch_model-0000{}-of-00002{}",
        "model-00001-of-0000{}{}",
        "the part number {} (of two){}",
        "{}{}",
    ],
)
@pytest.mark.parametrize("whole", SUFFIX)
def test_shards_of_any_name(directory, weights, names, whole):
    files = [names.format(number, SUFFIX[whole]) for number in (1, 2)]
    save_shards(directory, weights, files, f"{whole}.index.json")
    (directory / "config.json.bak").write_text("{}")
    save(directory / f"consolidated{SUFFIX[whole]}", {"x": torch.ones(1)})
    assert equal(read(directory), loaded(directory))


def test_an_extra_file_that_the_index_names(directory, weights):
    save_shards(
        directory, weights, ["model-00001-of-00001.safetensors", "mtp.safetensors"], "model.safetensors.index.json"
    )
    assert equal(read(directory), loaded(directory))


@pytest.mark.parametrize("whole", SUFFIX)
@pytest.mark.parametrize(
    "names", ["{}-00001-of-00002{},{}-00002-of-00002{}", "x-1-of-2{},x-2-of-2{}", "one{},two{}", "only{}"]
)
def test_shards_without_an_index(directory, weights, whole, names):
    stem = whole.removesuffix(SUFFIX[whole])
    files = [name.replace("{}", stem, name.count("{}") - 1).format(SUFFIX[whole]) for name in names.split(",")]
    save_shards(directory, weights, files)
    for name in ("training_args.bin", "adapter_model.safetensors"):
        (directory / name).write_bytes(b"no weights")
    assert equal(read(directory), {name: value.numpy() for name, value in weights.items()})
    # With an index that names the same files, transformers reads them to the same.
    save_shards(directory, weights, files, f"{whole}.index.json")
    assert equal(read(directory), loaded(directory))


def test_a_tensor_that_stands_twice_without_an_index(directory, weights):
    for name in ("model.fp16.safetensors", "model.fp32.safetensors"):
        save(directory / name, weights)
    with pytest.raises(InputError, match=r"is in model.fp16.safetensors and in model.fp32.safetensors"):
        read(directory)


def test_a_shard_that_is_missing_without_an_index(directory, weights):
    save_shards(directory, weights, [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)])
    (directory / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"shard model-00002-of-00003.safetensors is missing"):
        read(directory)


def test_the_order_is_that_of_transformers(directory, weights):
    """Each set of the four files, each of which holds other values."""
    forms = [name + index for name in SUFFIX for index in ("", ".index.json")]
    for chosen in itertools.chain.from_iterable(itertools.combinations(forms, count) for count in (1, 2, 3, 4)):
        for path in [*directory.glob("*.safetensors"), *directory.glob("*.bin"), *directory.glob("*.index.json")]:
            path.unlink()
        for form in chosen:
            whole = form.removesuffix(".index.json")
            tensors = weights | {PROBE: torch.full_like(weights[PROBE], float(forms.index(form)))}
            if form == whole:
                save(directory / whole, tensors)
            else:
                files = [whole.replace(".", f"-0000{number}-of-00002.") for number in (1, 2)]
                save_shards(directory, tensors, files, form)
        found = read(directory)[PROBE][0]
        assert found == loaded(directory)[PROBE][0] == forms.index(chosen[0]), chosen
        names = [path.name for path in directory.iterdir()]
        other = [form for form in chosen if SUFFIX[form.removesuffix(".index.json")] not in chosen[0]]
        assert unread(names, infer_format(directory)) == (other[0] if other else None)


def test_a_format_that_was_asked_for():
    names = ["config.json", "model.safetensors", "pytorch_model-1-of-1.bin", "x.gguf"]
    torch_only = choose(names, "huggingface-torch", "here", lambda name: b"")
    assert torch_only is not None
    assert torch_only.files == ("pytorch_model-1-of-1.bin",)
    assert format_of(names) == "huggingface-safetensor"
    assert format_of(names[2:]) == "huggingface-torch"
    assert format_of(["x.gguf"]) is format_of([]) is None


def test_the_parts_of_gguf_files():
    parts = [f"a-b-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert all(gguf_parts(name) == parts for name in parts)
    assert gguf_models(["x.GGUF", *parts[1:], "y-00001-of-00001.gguf", "z.bin"]) == [
        parts,
        ["x.GGUF"],
        ["y-00001-of-00001.gguf"],
    ]
    for name in ("a-00004-of-00003.gguf", "a-00000-of-00003.gguf", "a-1-of-3.gguf", "a-99999-of-99999.gguf"):
        assert gguf_parts(name) == [name]


def test_weights_that_the_configuration_names(directory, weights):
    """transformers reads the named file; it is refused here unless it is the one that is read."""
    config = json.loads((directory / "config.json").read_text())
    save(directory / "model.safetensors", weights)
    save(directory / "other.safetensors", weights | {PROBE: torch.full_like(weights[PROBE], 3.0)})
    for named, value in (("model.safetensors", weights[PROBE][0].item()), ("other.safetensors", 3.0), (None, ...)):
        (directory / "config.json").write_text(json.dumps(config | {"transformers_weights": named}))
        if named is not None:
            assert loaded(directory)[PROBE][0] == value
        if named == "other.safetensors":
            with pytest.raises(InputError, match=r"config.json: transformers_weights: [^!]*transformers reads 'other"):
                read(directory)
            with pytest.raises(InputError, match="transformers_weights"):
                refuse_named_weights({"transformers_weights": named}, NAMES)
        else:
            assert equal(read(directory), {name: tensor.numpy() for name, tensor in weights.items()})
