"""Every family's library against transformers: prefill in two chunk sizes, a batch of two, eight decode steps."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from llmbuild.models.family import Overrides
from llmbuild.models.registry import families, family, infer_model_type
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.agreement import FUNCTIONS, agree
from tests.helpers.generic_library import GenericLibrary, is_packed
from tests.helpers.parts import covering, of_weights
from tests.helpers.variants import DIRECTORY, all_logits, in_ci, variants, write_checkpoint


def test_every_family_has_variants() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.json")} == {name.replace("-", "_") for name in families()}


@pytest.mark.parametrize("name", variants())
def test_a_written_configuration_reads_back_equal(name: str) -> None:
    family = families()[infer_model_type(variants()[name])]
    config = family.configure(variants()[name], Overrides())
    again = family.restore(json.loads(json.dumps(config.to_json())), Overrides())
    assert (again, family.parameters(again)) == (config, family.parameters(config))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [(name, scheme) for name in variants() for scheme in ("q0f16", "q4f16_1") if scheme[1] == "4" or in_ci(name)],
)
def test_the_module_declares_the_listed_parameters(name: str, scheme: str) -> None:
    from llmbuild.models.build import export

    chosen, kind = SCHEMES[scheme], family(infer_model_type(variants()[name]))
    config = kind.configure(variants()[name], Overrides())
    wanted: list[tuple[str, str]] = []
    for parameter in kind.parameters(config):
        stem = parameter.name.removesuffix("weight")
        if is_packed(parameter, chosen):
            wanted += [(f"{stem}q_weight", "uint32"), (f"{stem}q_scale", chosen.dtype)]
        else:
            wanted.append((parameter.name, parameter.dtype or chosen.dtype))
    assert [(name, value.dtype) for name, value in export(config, kind, chosen).params] == wanted


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if in_ci(name) else pytest.mark.full) for name in variants()]
)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "checkpoint", variants()[name])
    library = GenericLibrary(tmp_path / "checkpoint", functions=FUNCTIONS)
    agree(library, partial(all_logits, model), 2e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in covering(of_weights) else pytest.mark.full) for name in variants()]
)
def test_logits_of_packed_weights(name: str, tmp_path: Path) -> None:
    """The checkpoint's weights are the dequantized ones: every matrix is one of four bits."""
    model = write_checkpoint(tmp_path / "checkpoint", variants()[name], four_bits=True)
    library = GenericLibrary(tmp_path / "checkpoint", "q4f32_1", FUNCTIONS)
    agree(library, partial(all_logits, model), 2e-5)
