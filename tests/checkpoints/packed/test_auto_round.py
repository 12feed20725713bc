"""AutoRound's checkpoints are those of GPTQ and AWQ under another name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.checkpoints.packed.auto_round import auto_round
from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.errors import InputError
from tests.helpers.packed import Packer, awq_packer, gptq_layer, gptq_packer, make_packed_checkpoint, opened, stored_of

CONFIG = {"quant_method": "auto-round", "bits": 4, "group_size": 64, "sym": True, "autoround_version": "0.16.1"}


def method(**changes: Any) -> Any:
    return auto_round(Quantization("auto-round", CONFIG | changes, "config.json", "quantization_config"))


@pytest.mark.parametrize(
    ("packing", "same", "packer"),
    [
        ("auto_round:auto_gptq", "gptq", gptq_packer(4, 64)),
        ("auto_round:auto_awq", "awq", awq_packer(64)),
        (None, "gptq", gptq_packer(4, 64)),
    ],
)
def test_weights_are_those_of_the_packing(packing: str | None, same: str, packer: Packer, tmp_path: Path) -> None:
    said = {"packing_format": packing} if packing else {}
    plain_head = {"extra_config": {"lm_head": {"bits": 16, "data_type": "float"}}}
    ours = make_packed_checkpoint(tmp_path / "ours", packer, CONFIG | said | plain_head)
    theirs = tmp_path / "theirs"
    shutil.copytree(ours, theirs)
    config = json.loads((ours / "config.json").read_text())
    config["quantization_config"] = {"quant_method": same, "bits": 4, "group_size": 64}
    (theirs / "config.json").write_text(json.dumps(config))
    with opened(ours, print) as checkpoint, opened(theirs, print) as expected:
        assert checkpoint.packed_by == "AutoRound, 4 bits"
        assert checkpoint.tensors == expected.tensors
        for name in expected.tensors:
            assert checkpoint.read(name).tobytes() == expected.read(name).tobytes()


def test_modules_with_settings_of_their_own() -> None:
    tensors, expected = gptq_layer(64, 64, 8, 32)
    stored = stored_of({f"m.{name}": value for name, value in tensors.items()})
    (weight,) = method(extra_config={"m": {"bits": 8, "group_size": 32}}).weights(stored)
    assert (weight.unpack() == expected).all()
    with pytest.raises(InputError, match="does not fit the quantized weights"):
        list(method(extra_config={"m": {"bits": 16}, "n": {"bits": 4}, "o": 3}).weights(stored))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"packing_format": "auto_round"}, "packing_format"),
        ({"packing_format": "auto_round:gptqmodel"}, "packing_format"),
        ({"packing_format": "auto_round:llm_compressor"}, "packing_format"),
        ({"packing_format": 4}, "packing_format"),
        ({"backend": "auto_round:gptq:exllamav2"}, "backend"),
        ({"data_type": "mx_fp"}, "data_type"),
        ({"bits": 5}, "bits"),
        ({"packing_format": "auto_round:auto_awq", "bits": 2}, "bits"),
    ],
)
def test_a_form_that_is_not_read(change: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match="quantized by AutoRound in a form that is not read") as caught:
        method(**change)
    assert caught.value.where == f"config.json: quantization_config.{key}"


def test_keys_of_the_packing_itself_mean_nothing() -> None:
    tensors, expected = gptq_layer(64, 64, 4, 64)
    stored = stored_of({f"m.{name}": value for name, value in tensors.items()})
    (weight,) = method(checkpoint_format="gptq_v2", version="gemv", desc_act=True, is_marlin_format=True).weights(
        stored
    )
    assert np.array_equal(weight.unpack(), expected)
