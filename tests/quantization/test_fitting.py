"""Lists of tensors that are not a model's: one short message for each cause, on models of many layers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError, MultiError
from llmbuild.models.config_json import vocabulary_key
from llmbuild.models.family import Overrides
from llmbuild.models.registry import family, infer_model_type
from llmbuild.quantization.fitting import check
from llmbuild.report.errors import render_error
from llmbuild.report.style import Style
from tests.helpers.checkpoints import CONFIGS
from tests.helpers.variants import variants

LAYERS = 32
Tensors = dict[str, TensorInfo]
Change = Callable[[Tensors], object]


def model(variant: str = "llama", **keys: object) -> tuple[object, ...]:
    architecture = family(str(CONFIGS[variant]["model_type"]))
    config = {**CONFIGS[variant], "num_hidden_layers": LAYERS, **keys}
    return architecture.parameters(architecture.configure(config, Overrides())), architecture.unused


def stored(parameters: object) -> Tensors:
    found: Tensors = {}
    for parameter in parameters:  # type: ignore[attr-defined]
        whole = parameter.stored_shape
        rest = whole[0] - len(parameter.sources) + 1
        for source in parameter.sources:
            found[source] = TensorInfo.of(source, (rest, *whole[1:]), "float16")
            rest = 1
    return found


def verdict(change: Change, variant: str = "llama", **keys: object) -> list[InputError]:
    """The errors of a checkpoint that is changed; rendered for a narrow terminal they are short."""
    parameters, unused = model(variant, **keys)
    tensors = stored(parameters)
    change(tensors)
    source = SimpleNamespace(tensors=tensors, location=lambda name: "model-00001-of-00002.safetensors")
    try:
        check(source, parameters, unused)  # type: ignore[arg-type]
    except (InputError, MultiError) as error:
        assert len(render_error(error, Style()).splitlines()) <= 25
        return list(error.errors) if isinstance(error, MultiError) else [error]
    return []


def rename(old: str, new: str) -> Change:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new, 1)] = tensors.pop(name)

    return change


def drop(*parts: str) -> Change:
    return lambda tensors: [tensors.pop(name) for name in list(tensors) if any(part in name for part in parts)]


def retype(dtype: str, part: str = "proj") -> Change:
    def change(tensors: Tensors) -> None:
        for name, info in list(tensors.items()):
            if part in name:
                tensors[name] = TensorInfo(name, info.shape[:1], dtype, 1)
                tensors[f"{name}_scale"] = TensorInfo.of(f"{name}_scale", (1,), "float32")

    return change


def add(*names: str) -> Change:
    return lambda tensors: tensors.update({name: TensorInfo.of(name, (2, 2), "float16") for name in names})


def both(*changes: Change) -> Change:
    return lambda tensors: [change(tensors) for change in changes]


def layers(first: int, last: int) -> list[str]:
    return [
        f"model.layers.{n}.{part}.weight" for n in range(first, last) for part in ("mlp.up_proj", "input_layernorm")
    ]


CASES: dict[str, tuple[Change, list[str], str]] = {
    "as it is": (lambda tensors: None, [], ""),
    "one missing": (drop("layers.7.mlp.up"), ["tensor 'model.layers.7.mlp.up_proj.weight' is missing"], "did you mean"),
    "one unexpected": (
        add("router.weight"),
        ["unexpected tensor 'router.weight'"],
        "no parameter that is made from it",
    ),
    "a name that differs": (
        rename("model.norm", "model.final_norm"),
        ["tensor 'model.norm.weight' is missing", "unexpected tensor 'model.final_norm.weight'"],
        "did you mean",
    ),
    "many missing": (
        drop("up_proj"),
        [f"{LAYERS} tensors are missing"],
        "'model.layers.4.mlp.up_proj.weight' and 27 more",
    ),
    "two unexpected": (add("a", "b"), ["2 unexpected tensors"], "made from 'a' and 'b'"),
    "all of another model": (
        rename("", "x"),
        ["none of the 291 tensors that the architecture needs is there"],
        "it needs 'model.embed_tokens.weight', ",
    ),
    "more layers": (
        add(*layers(32, 40)),
        ["the checkpoint has 40 layers, and the configuration 32"],
        "'model.layers.34.mlp.up_proj.weight' and 11 more are beyond the latter",
    ),
    "fewer layers": (
        drop("layers.31.", "layers.30."),
        ["the checkpoint has 30 layers, and the configuration 32"],
        "and 13 more are missing for the latter",
    ),
    "fewer layers and another name": (
        both(drop("layers.31."), add("x")),
        ["the checkpoint has 31 layers, and the configuration 32", "unexpected tensor 'x'"],
        "'model.layers.31.self_attn.q_proj.weight'",
    ),
    "no head": (
        drop("lm_head"),
        ["the checkpoint has no head for text: tensor 'lm_head.weight' is missing"],
        "a model class that has none",
    ),
    "a classifier": (
        both(drop("lm_head"), add("score.weight")),
        ["the checkpoint has no head for text: tensor 'lm_head.weight' is missing"],
        "it has 'score.weight'",
    ),
    **{
        f"weights of {dtype}": (
            retype(dtype),
            [
                "tensor 'model.layers.0.self_attn.q_proj.weight' holds no plain floating-point weights, "
                f"and so do {7 * LAYERS - 1} others"
            ],
            f"it is {dtype}; expected",
        )
        for dtype in ("int8", "float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn", "float6_e3m2fn")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_each_cause_is_said_once(case: str) -> None:
    change, what, why = CASES[case]
    errors = verdict(change)
    assert [error.what for error in errors] == what
    assert why in (errors[0].why if errors else "") or not errors


def test_the_place_is_the_file_of_the_first_tensor() -> None:
    for change in (add("a", "b"), add(*layers(32, 33)), retype("int8")):
        (error,) = verdict(change)
        assert error.where == "model-00001-of-00002.safetensors"


def test_another_width_is_one_message() -> None:
    parameters, _ = model()
    narrow = stored(parameters)
    (error,) = verdict(lambda tensors: tensors.update(narrow), intermediate_size=512)
    assert error.what.startswith("shape mismatch: 'model.layers.0.mlp.gate_proj.weight' [703, 128] and ")
    assert error.why is not None
    assert "stacked to [1024, 128]; 'model.layers.0.mlp.down_proj.weight', " in error.why
    assert f"and {2 * LAYERS - 6} more do not fit either" in error.why


@pytest.mark.parametrize("tied", [True, False])
def test_padded_embeddings_are_told_the_number_to_set(tied: bool) -> None:
    parameters, _ = model(tie_word_embeddings=tied)
    padded = stored(parameters)
    (error,) = verdict(lambda tensors: tensors.update(padded), vocab_size=317, tie_word_embeddings=tied)
    assert error.fix == "set vocab_size = 320 in config.json"


@pytest.mark.parametrize("name", variants())
def test_padded_embeddings_of_every_family_are_told_the_number_to_set(name: str) -> None:
    """Also where a head's bias or an embedding of positions is beside them."""
    config = variants()[name]
    key = vocabulary_key(config)
    architecture = family(infer_model_type(config))
    parameters, padded = (
        architecture.parameters(architecture.configure({**config, key: size}, Overrides()))
        for size in (config[key], config[key] + 32)
    )
    source = SimpleNamespace(tensors=stored(padded), location=lambda name: "model.safetensors")
    with pytest.raises(InputError, match="shape mismatch") as caught:
        check(source, parameters, architecture.unused, key)  # type: ignore[arg-type]
    assert caught.value.fix == f"set {key} = {config[key] + 32} in config.json"


@pytest.mark.parametrize("variant", ["gpt_neox", "qwen2", "qwen3", "mistral"])
def test_the_other_families(variant: str) -> None:
    assert verdict(lambda tensors: None, variant) == []
    (error,) = verdict(drop(".31."), variant)
    assert error.what == "the checkpoint has 31 layers, and the configuration 32"
