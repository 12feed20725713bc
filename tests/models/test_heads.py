"""The head that computes the logits, as MLC's weights have it."""

from __future__ import annotations

import pytest

from llmbuild.models.family import Overrides
from llmbuild.models.parameter import Parameter
from llmbuild.models.registry import families, family, infer_model_type
from tests.helpers.variants import variants

COPIED = {"gpt2/gpt2": "transformer.wte.weight", "starcoder2/window, tied": "model.embed_tokens.weight"}


def last(name: str, **keys: bool) -> Parameter:
    config = {**variants()[name], **keys}
    found = family(infer_model_type(config))
    return found.parameters(found.configure(config, Overrides()))[-1]


@pytest.mark.parametrize("name", COPIED)
def test_a_tied_head_is_a_copy_of_the_embedding_where_mlc_stores_one(name: str) -> None:
    head = last(name)
    assert (head.name, head.role, head.sources) == ("lm_head.weight", "head", (COPIED[name],))
    assert last(name, tie_word_embeddings=False).sources == ("lm_head.weight",)


def test_the_families_whose_stored_head_is_a_parameter_though_it_is_tied() -> None:
    found = {name for name, item in families().items() if item.keeps_head}
    assert found >= {"gpt_bigcode", "gpt_neox", "internlm", "internlm2", "mistral", "orion", "qwen", "stablelm"}
    assert not found & {"gpt2", "starcoder2", "llama", "qwen2", "gemma", "cohere"}


@pytest.mark.parametrize("name", ["phi/phi-2", "gptj/GPT-J"])
def test_the_bias_of_a_head_has_the_number_type_of_the_weights(name: str) -> None:
    bias = last(name)
    assert (bias.name.endswith(".bias"), bias.dtype) == (True, None)
