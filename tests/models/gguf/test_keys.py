"""Every key that gguf defines under an architecture's prefix is read, refused, or known to say nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.gguf.keys import HARMLESS, NEUTRAL, OF_EXPERTS, OF_YARN, READ, YARN_NAMES
from llmbuild.models.registry import family
from tests.helpers.gguf_files import make_config

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.block_count": 1,
    "llama.context_length": 256,
    "llama.attention.head_count": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
EMBEDDING = {"token_embd.weight": TensorInfo.of("token_embd.weight", (4, 64), "float32")}
CHANGES: dict[str, Any] = {
    "attention.causal": False,
    "swin_norm": True,
    "tensor_data_layout": "another",
    "rope.dimension_sections": [16, 24, 24, 0],
    "classifier.output_labels": ["yes", "no"],
}


def keys_of(group: type) -> Iterator[str]:
    """The keys of a group and of the groups in it that begin with the architecture's name."""
    for value in vars(group).values():
        if inspect.isclass(value):
            yield from keys_of(value)
        elif isinstance(value, str) and value.startswith("{arch}."):
            yield value.removeprefix("{arch}.")


def config(key: str, value: Any) -> dict[str, Any]:
    return make_config(METADATA | {f"llama.{key}": value}, EMBEDDING, {}, Path("x.gguf"))


def test_no_key_of_gguf_is_unknown() -> None:
    tables = [READ, NEUTRAL, OF_YARN, OF_EXPERTS, HARMLESS]
    known = [key for table in tables for key in table]
    assert len(set(known)) == len(known)
    defined = set(keys_of(gguf.Keys))
    assert not defined - set(known)
    # A key that gguf has no longer, or never had, is a slip here.
    assert not set(known) - defined


@pytest.mark.parametrize("key", sorted(READ))
def test_a_key_that_is_read_counts(key: str) -> None:
    architecture = "gptneox" if key in ("use_parallel_residual", "attention.layer_norm_epsilon") else "llama"
    metadata = {name.replace("llama", architecture): value for name, value in METADATA.items()}
    metadata |= {"general.architecture": architecture, "gptneox.attention.layer_norm_epsilon": 1e-5}
    metadata |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    with pytest.raises(InputError, match="metadata cannot be used") as caught:
        make_config(metadata | {f"{architecture}.{key}": []}, EMBEDDING, {}, Path("x.gguf"))
    assert caught.value.where == f"x.gguf: {architecture}.{key}"


@pytest.mark.parametrize("key", NEUTRAL)
def test_a_key_that_changes_the_result_and_is_not_read_is_refused(key: str) -> None:
    for neutral in NEUTRAL[key]:
        assert config(key, neutral) == config("nothing", 0)
    value = CHANGES.get(key, 3)
    with pytest.raises(InputError, match="metadata cannot be used") as caught:
        config(key, value)
    assert caught.value.where == f"x.gguf: llama.{key}"
    assert caught.value.why == f"it is {value!r}, which is not supported for llama"


@pytest.mark.parametrize("key", sorted(OF_EXPERTS))
def test_keys_of_experts_count_with_experts_only(key: str) -> None:
    assert config(key, 2) == config("nothing", 0)
    with pytest.raises(InputError, match="metadata cannot be used") as caught:
        config("expert_count", 8)
    assert caught.value.why == "the model is a mixture of experts, which is not supported"


@pytest.mark.parametrize("key", sorted(OF_YARN))
def test_keys_of_yarn_count_with_yarn_only(key: str) -> None:
    assert config(key, 0.5) == config("nothing", 0)
    yarn = METADATA | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    plain = make_config(yarn, EMBEDDING, {}, Path("x.gguf"))
    assert plain["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0}
    family("llama").configure(plain, Overrides())
    for neutral in OF_YARN[key] or ():
        assert make_config(yarn | {f"llama.{key}": neutral}, EMBEDDING, {}, Path("x.gguf")) == plain
    if OF_YARN[key] is None:
        read = make_config(yarn | {f"llama.{key}": 2.5}, EMBEDDING, {}, Path("x.gguf"))["rope_scaling"]
        assert read == {**plain["rope_scaling"], key.removeprefix("rope.scaling.yarn_"): 2.5}
    if key in YARN_NAMES:
        read = make_config(yarn | {f"llama.{key}": 2.5}, EMBEDDING, {}, Path("x.gguf"))["rope_scaling"]
        other = {"mscale": 1.0} if YARN_NAMES[key] == "mscale_all_dim" else {}
        assert read == {**plain["rope_scaling"], YARN_NAMES[key]: 2.5, **other}
    with pytest.raises(InputError, match="metadata cannot be used") as caught:
        make_config(yarn | {f"llama.{key}": -0.5}, EMBEDDING, {}, Path("x.gguf"))
    assert caught.value.where == f"x.gguf: llama.{key}"


@pytest.mark.parametrize("key", sorted(HARMLESS))
def test_what_says_nothing_changes_nothing(key: str) -> None:
    assert config(key, 3) == config("nothing", 0)
