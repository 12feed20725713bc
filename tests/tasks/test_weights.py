"""Checkpoints as the tasks open them: names that are not the model's give the same weights, and a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.canonical import Json
from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks import inspect, quantize
from tests.helpers.checkpoints import cached_checkpoint, renamed_copy
from tests.helpers.reference_quant import read_weights

NAMES = {
    "module": ("", "module."),
    "orig_mod": ("", "_orig_mod."),
    "language_model": ("model.", "model.language_model."),
    "the inner model": ("model.", ""),
}


def built(checkpoint: Path, place: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of inspect and of quantize, with the notes of both."""
    notes: list[str] = []
    params: dict[str, Json] = {"model-type": None, "ignore-keys": [], "source-format": None}
    files: dict[str, bytes] = {}
    inputs = {"checkpoint": checkpoint}
    for kind in (inspect.KIND, quantize.KIND):
        out = place / kind.name
        out.mkdir(parents=True)
        kind.run(Job(params, inputs, {}, out, out, lambda *_: None, note=notes.append))
        files |= {path.name: path.read_bytes() for path in out.iterdir()}
        inputs = {**inputs, "facts": out / "facts.json"}
        params = {**params, "scheme": SCHEMES["q4f16_1"].to_json(), "method": "round", "float32": "bf16"}
    return files, notes


def values(place: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in read_weights(place / "quantize")[0].items()}


@pytest.mark.parametrize("names", NAMES)
def test_names_that_are_not_the_model_s(tmp_path: Path, names: str) -> None:
    source = cached_checkpoint("llama")
    plain, none = built(source, tmp_path / "plain")
    other, notes = built(renamed_copy(source, tmp_path / "in", *NAMES[names]), tmp_path / "other")
    assert not none
    # The order of the records is that of the file, which is sorted by its names.
    assert values(tmp_path / "other") == values(tmp_path / "plain")
    assert other["facts.json"] == plain["facts.json"]
    assert len(notes) == 1
    assert "tensors are read under the names that the model has for them" in notes[0]


def test_a_model_without_a_head_is_one_sentence(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    AutoModel.from_pretrained(cached_checkpoint("llama"), dtype=torch.float32).save_pretrained(tmp_path / "in")
    with pytest.raises(InputError, match="architecture 'LlamaModel' is not supported"):
        built(tmp_path / "in", tmp_path / "refused")
    config = tmp_path / "in" / "config.json"
    config.write_text(config.read_text().replace("LlamaModel", "LlamaForCausalLM"))
    with pytest.raises(InputError, match=r"no head for text: tensor 'lm_head.weight' is missing"):
        built(tmp_path / "in", tmp_path / "out")
