"""The method "calibrated" in the quantize task: from moments, from importance matrices of llama.cpp, and from wrong ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.quantization.moments import MOMENTS, Input, MomentsFile, write_moments
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.quantize import KIND
from tests.helpers.imatrix import write_entries, write_gguf
from tests.helpers.inspected import facts_of
from tests.helpers.reference_quant import dequantize, read_weights
from tests.tasks.test_quantize import HIDDEN, INTERMEDIATE, LAYERS, tensors, write_checkpoint

HEAD = "lm_head"


def layers(inner: int = INTERMEDIATE) -> list[Input]:
    """The inputs of the tiny model."""
    found = []
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        found += [
            Input(HIDDEN, (f"{layer}.self_attn.qkv_proj",)),
            Input(HIDDEN, (f"{layer}.self_attn.o_proj",)),
            Input(HIDDEN, (f"{layer}.mlp.gate_up_proj",)),
            Input(inner, (f"{layer}.mlp.down_proj",)),
        ]
    return [*found, Input(HIDDEN, (HEAD,))]


def moments_of(one: Input) -> np.ndarray:
    random = np.random.default_rng(one.size)
    x = random.standard_normal((500, one.size)) @ random.standard_normal((one.size, one.size)) + 1
    found: np.ndarray = (x.T @ x / 500).astype(np.float32)
    return found


def write(directory: Path, inputs: list[Input]) -> Path:
    directory.mkdir()
    write_moments(directory / MOMENTS, inputs, 500, map(moments_of, inputs))
    return directory


def run(checkpoint: Path, out: Path, importance: Path | None, scheme: str = "q4f16_1", threads: int = 2) -> None:
    out.mkdir()
    params = {
        "scheme": SCHEMES[scheme].to_json(),
        "model-type": None,
        "ignore-keys": [],
        "source-format": None,
        "method": "round" if importance is None else "calibrated",
        "float32": "bf16",
    }
    inputs = {"checkpoint": checkpoint, "facts": facts_of(checkpoint)}
    inputs |= {} if importance is None else {"importance": importance}
    KIND.run(Job(params, inputs, {"threads": threads}, out, out, lambda *_: None))


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("scheme", ["q4f16_1", "q3f16_0", "q4f32_1"])
def test_less_loss_in_files_of_the_same_sizes(scheme: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    run(checkpoint, tmp_path / "round", None, scheme)
    importance = write(tmp_path / "moments", layers())
    for threads in (1, 3):
        run(checkpoint, tmp_path / f"calibrated{threads}", importance, scheme, threads)
    rounded, calibrated = files(tmp_path / "round"), files(tmp_path / "calibrated1")
    assert calibrated == files(tmp_path / "calibrated3")
    assert {name: len(data) for name, data in rounded.items()} == {name: len(data) for name, data in calibrated.items()}
    assert rounded["params_shard_0.bin"] != calibrated["params_shard_0.bin"]
    losses = [_loss(tmp_path / name, scheme) for name in ("round", "calibrated1")]
    assert losses[1] < 0.6 * losses[0]


def _loss(directory: Path, scheme: str) -> float:
    """Of a layer with three sources, as its input counts it."""
    stored, _ = read_weights(directory)
    of = SCHEMES[scheme]
    module = "model.layers.1.self_attn.qkv_proj"
    words, scales = stored[f"{module}.q_weight"], stored[f"{module}.q_scale"]
    if of.layout == "KN":
        words, scales = words.T, scales.T
    weight = np.concatenate([tensors()[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"])
    errors = weight.astype(np.float64) - dequantize(words, scales, of.bits, of.group_size, HIDDEN).astype(np.float64)
    return float(np.einsum("ij,ij->", errors @ moments_of(Input(HIDDEN, ("x",))), errors))


@pytest.mark.parametrize("form", [write_gguf, write_entries])
def test_an_importance_matrix_of_llama_cpp_weights_the_search(form: object, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    squares = {}
    for index in range(LAYERS):
        for name, size in (("attn_q", HIDDEN), ("attn_k", HIDDEN), ("attn_v", HIDDEN), ("ffn_down", INTERMEDIATE)):
            squares[f"blk.{index}.{name}.weight"] = np.geomspace(1, 1e4, size).astype(np.float32)
    results = {}
    for kind, values in {
        "flat": {name: np.ones_like(each) for name, each in squares.items()},
        "steep": squares,
    }.items():
        importance = tmp_path / kind
        importance.mkdir()
        form(importance / "imatrix", values, 3)  # type: ignore[operator]
        run(checkpoint, tmp_path / f"{kind}-out", importance)
        stored, _ = read_weights(tmp_path / f"{kind}-out")
        results[kind] = stored
    differ = {name for name in results["flat"] if not np.array_equal(results["flat"][name], results["steep"][name])}
    modules = {name.rpartition(".")[0] for name in differ}
    assert modules == {
        f"model.layers.{index}.{module}"
        for index in range(LAYERS)
        for module in ("self_attn.qkv_proj", "mlp.down_proj")
    }
    # Errors went from the inputs of much weight to those of little.
    weight = np.concatenate([tensors()[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv"])
    late = {}
    for kind, stored in results.items():
        parts = (stored[f"model.layers.0.self_attn.qkv_proj.{part}"] for part in ("q_weight", "q_scale"))
        late[kind] = float(np.square((weight - dequantize(*parts, 4, 32, HIDDEN))[:, 24:32].astype(np.float64)).sum())
    assert late["steep"] < late["flat"]


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        (layers()[1:], "model.layers.0.self_attn.qkv_proj with 64 inputs, and the file has no such layer"),
        (layers(inner=128), "model.layers.0.mlp.down_proj with 96 inputs, and the file has 128 inputs of it"),
    ],
)
def test_moments_of_another_model_are_refused(inputs: list[Input], why: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    with pytest.raises(InputError) as caught:
        run(checkpoint, tmp_path / "out", write(tmp_path / "moments", inputs))
    assert why in (caught.value.why or "")


@pytest.mark.parametrize(
    ("squares", "why"),
    [
        ({"blk.0.ffn_down.weight": np.ones(64, np.float32)}, "has 96 inputs, and the file has 64 of it"),
        ({"blk.9.ffn_down.weight": np.ones(96, np.float32)}, "of its 1 weights, 'blk.9.ffn_down.weight' among them"),
    ],
)
def test_importance_of_another_model_is_refused(squares: dict[str, np.ndarray], why: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    (tmp_path / "importance").mkdir()
    write_gguf(tmp_path / "importance" / "imatrix.gguf", squares, 1)
    with pytest.raises(InputError) as caught:
        run(checkpoint, tmp_path / "out", tmp_path / "importance")
    assert why in (caught.value.why or "")


def test_moments_come_back_and_large_inputs_lie_in_blocks(tmp_path: Path) -> None:
    wide = Input(2500, ("a", "b"))
    assert [block.stop - block.start for block in wide.blocks] == [833, 833, 834]
    random = np.random.default_rng(0)
    blocks = [random.standard_normal((part.stop - part.start,) * 2).astype(np.float32) for part in wide.blocks]
    blocks = [block @ block.T for block in blocks]
    write_moments(tmp_path / MOMENTS, [wide], 7, blocks)
    file = MomentsFile(tmp_path / MOMENTS)
    assert (file.tokens, file.inputs) == (7, (wide,))
    for found, block in zip(file.moments(wide), blocks, strict=True):
        np.testing.assert_array_equal(found, np.triu(block))
    file.close()


@pytest.mark.parametrize("damage", ["format", "tensors", "metadata", "values"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "moments", layers())
    path = directory / MOMENTS
    data = path.read_bytes()
    if damage == "values":
        data = data[:-4] + np.float32(np.nan).tobytes()
    else:
        old, new = {
            "format": (b"moments 1", b"moments 9"),
            "tensors": (b'"lm_head.0"', b'"lm_heat.0"'),
            "metadata": (b'"tokens":"500"', b'"tokens":"5oo"'),
        }[damage]
        data = data.replace(old, new)
    path.write_bytes(data)
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    with pytest.raises(InputError, match="no second moments of this model"):
        run(checkpoint, tmp_path / "out", directory)
    shutil.rmtree(directory)


def test_importance_is_one_file(tmp_path: Path) -> None:
    directory = write(tmp_path / "moments", layers())
    (directory / "more").write_bytes(b"")
    with pytest.raises(InputError, match="importance is one file") as caught:
        run(write_checkpoint(tmp_path / "in", tensors()), tmp_path / "out", directory)
    assert caught.value.why == "there are 2"


def test_matrices_of_llama_cpp_are_refused_for_a_family_whose_names_it_has_not(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps({**config, "model_type": "cwm", "head_dim": 16, "architectures": ["CwmForCausalLM"]})
    )
    (tmp_path / "importance").mkdir()
    write_gguf(tmp_path / "importance" / "imatrix.gguf", {"blk.0.ffn_down.weight": np.ones(96, np.float32)}, 1)
    with pytest.raises(InputError, match="not read for this architecture") as caught:
        run(checkpoint, tmp_path / "out", tmp_path / "importance")
    assert "names of cwm's weights" in (caught.value.why or "")
