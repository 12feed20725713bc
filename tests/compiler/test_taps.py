"""Libraries that return what linear layers are multiplied with: the values are those of the model in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from llmbuild.compiler.lower import lower
from llmbuild.models.registry import family
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.runtime.library import load_library
from llmbuild.runtime.session import Session
from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.generic_library import read_state
from tests.helpers.tiny_library import TARGET, chat_config, link_shared

# MLC joins layers of one input in most families, and has some apart in others.
JOINED = {"qkv_proj": "q_proj", "c_attn": "q_proj", "gate_up_proj": "gate_proj", "query_key_value": "query_key_value"}


@pytest.mark.parametrize("variant", ["llama-tied", "qwen2", "gpt_neox"])
def test_inputs_are_those_of_the_model(variant: str, tmp_path: Path) -> None:
    directory = cached_checkpoint(variant)
    source = json.loads((directory / "config.json").read_text())
    config = chat_config(source, "q0f32")
    record = lower(
        config,
        SCHEMES["q0f32"],
        {"prefill_chunk_size": 32},
        TARGET,
        system_lib=False,
        system_lib_prefix=None,
        out=tmp_path,
        activations="float",
        taps=True,
    )
    link_shared(tmp_path, tmp_path / "lib.so")
    library = load_library(tmp_path / "lib.so")
    assert library.metadata["linear_inputs"] == record["linear_inputs"]
    of = family(config["model_type"])
    wanted = {one.name: one for one in of.parameters(of.restore(config["model_config"], _overrides()))}
    state = read_state(directory, [name for one in wanted.values() for name in one.sources])
    parameters = [
        tvm.runtime.tensor(wanted[one.name].assemble([state[name] for name in wanted[one.name].sources]))
        for one in library.parameters
    ]
    session = Session(library, parameters, capacity=64)
    session.add()
    ids = list(range(5, 45))
    parts = [session.linear_inputs(ids[:32]), session.linear_inputs(ids[32:])]
    found = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
    expected = _inputs(reference_model(directory), ids)

    names = [each["parameters"] for each in record["linear_inputs"]]
    linears = [name.removesuffix(".weight") for name, one in wanted.items() if one.role in ("linear", "head")]
    tied = [] if any(one.role == "head" for one in wanted.values()) else ["model.embed_tokens"]
    assert sorted(name for each in names for name in each) == sorted([*linears, *tied])
    for each, values in zip(record["linear_inputs"], found, strict=True):
        assert values.shape == (40, each["size"])
        for name in each["parameters"]:
            np.testing.assert_allclose(values, expected[_in_transformers(name)], atol=2e-4)


def _overrides() -> Any:
    from llmbuild.models.family import Overrides

    return Overrides()


def _in_transformers(name: str) -> str:
    if name in ("model.embed_tokens", "embed_out"):
        return "lm_head"
    *path, last = name.split(".")
    return ".".join([*path, JOINED.get(last, last)])


def _inputs(model: Any, ids: list[int]) -> dict[str, np.ndarray]:
    import torch

    found: dict[str, np.ndarray] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, x, name=name: found.update({name: x[0][0].numpy()}))
    with torch.no_grad():
        model(torch.tensor([ids]))
    return found
