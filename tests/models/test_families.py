"""Every family's library against transformers: prefill in two chunk sizes, a batch of two, eight decode steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmbuild.models.family import Overrides
from llmbuild.models.registry import families, family, infer_model_type
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.generic_library import GenericLibrary, is_packed, tails
from tests.helpers.variants import DIRECTORY, all_logits, in_ci, variants, write_checkpoint

FUNCTIONS = ("embed", "batch_prefill", "batch_decode")
RANDOM = np.random.default_rng(3)
FIRST, SECOND = (RANDOM.integers(3, 150, size).tolist() for size in (45, 31))


def test_every_family_has_variants() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.json")} == {name.replace("-", "_") for name in families()}


@pytest.mark.parametrize("name", variants())
def test_a_written_configuration_reads_back_equal(name: str) -> None:
    family = families()[infer_model_type(variants()[name])]
    config = family.configure(variants()[name], Overrides())
    again = family.restore(json.loads(json.dumps(config.to_json())), Overrides())
    assert (again, family.parameters(again)) == (config, family.parameters(config))


@pytest.mark.parametrize("name", variants())
@pytest.mark.parametrize("scheme", ["q0f16", "q4f16_1"])
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
    wanted = [all_logits(model, ids) for ids in (FIRST, SECOND)]
    starts = [len(FIRST) - 8, len(SECOND) - 8]

    library.start(sequences=2)
    prompt = [*FIRST[: starts[0]], *SECOND[: starts[1]]]
    rows = library.forward("batch_prefill", prompt, starts, positions=[starts[0] - 1, sum(starts) - 1])[0]
    tails(rows, np.stack([wanted[i][starts[i] - 1] for i in (0, 1)]), 2e-5)
    for step in range(8):
        tokens = [FIRST[starts[0] + step], SECOND[starts[1] + step]]
        rows = library.forward("batch_decode", tokens, (1, 1))[:, 0]
        tails(rows, np.stack([wanted[i][starts[i] + step] for i in (0, 1)]), 2e-5)

    library.start(chunk=16)
    for start in range(0, len(FIRST), 16):
        ids = FIRST[start : start + 16]
        last = library.forward("batch_prefill", ids, positions=[len(ids) - 1])[0]
        tails(last, wanted[0][start + len(ids) - 1][None], 2e-5)
