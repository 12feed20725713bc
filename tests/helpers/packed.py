"""Checkpoints whose weights are packed, written from the definitions of the formats and sharing no code with llmbuild's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmbuild.checkpoints.packed.checkpoint import unpacked
from llmbuild.checkpoints.packed.quantization import check_quantization, read_quantization_files
from llmbuild.checkpoints.packed.weight import Stored
from llmbuild.checkpoints.tensor import Checkpoint, TensorInfo
from llmbuild.models.open import open_checkpoint
from tests.helpers.awq import quantize as quantize_awq
from tests.helpers.checkpoints import cached_checkpoint

Packer = Callable[[str, Any], dict[str, Any]]
"""From a module's name and weight [n, k] (torch, float32), the tensors that stand for it, by the last part of their names."""

WIDTH = {"intermediate_size": 384}
"""Whole groups and blocks of 128."""


def make_packed_checkpoint(
    directory: Path,
    packer: Packer,
    configuration: Mapping[str, Any],
    variant: str = "llama-gqa",
    *,
    dtype: str = "bfloat16",
    shape: Mapping[str, Any] = WIDTH,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """A tiny checkpoint with every layer's matrices packed, and config.json's quantization_config as given."""
    from safetensors.torch import load_file, save_file

    source = cached_checkpoint(variant, dtype=dtype, config=dict(shape))
    directory.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, directory)
    tensors = {}
    for name, value in load_file(source / "model.safetensors").items():
        if name.endswith(".weight") and ".layers." in name and value.ndim == 2:
            module = name.removesuffix(".weight")
            parts = packer(module, value.float())
            tensors.update({f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()})
        else:
            tensors[name] = value
    save_file({**tensors, **(extra or {})}, directory / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**said, "quantization_config": dict(configuration)}))
    return directory


def stored_of(tensors: Mapping[str, np.ndarray]) -> Stored:
    """Tensors in memory as a method sees those of a checkpoint."""
    infos = {name: TensorInfo.of(name, value.shape, value.dtype.name) for name, value in tensors.items()}
    return Stored(infos, lambda name: tensors[name], lambda name: "model.safetensors")


def plain_copy(packed: Path, directory: Path) -> Path:
    """The same checkpoint with plain weights, as llmbuild unpacks them."""
    shutil.copytree(packed, directory)
    config = json.loads((packed / "config.json").read_text())
    del config["quantization_config"]
    (directory / "config.json").write_text(json.dumps(config))
    with opened(packed, lambda note: None) as checkpoint:
        values = {name: checkpoint.read(name) for name in checkpoint.tensors}
    save_numpy(values, directory / "model.safetensors")
    return directory


def save_numpy(values: Mapping[str, np.ndarray], path: Path) -> None:
    """A safetensors file in the order of the values, of types that NumPy lacks too."""
    codes = {"float16": "F16", "float32": "F32", "bfloat16": "BF16", "bool": "BOOL"}
    header: dict[str, Any] = {}
    start = 0
    for name, value in values.items():
        header[name] = {
            "dtype": codes[value.dtype.name],
            "shape": value.shape,
            "data_offsets": [start, start + value.nbytes],
        }
        start += value.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(value.tobytes() for value in values.values()))


def opened(directory: Path, note: Callable[[str], None]) -> Checkpoint:
    """A checkpoint with plain weights, as quantize opens it."""
    base = open_checkpoint(directory)
    return unpacked(base, check_quantization(base.config, read_quantization_files(directory)), note)


def pack_words(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers [rows, count] as int32 [rows, words]: one long number a row, the first in the lowest bits."""
    rows, count = numbers.shape
    words = np.zeros((rows, -(-count * bits // 32)), np.uint32)
    for row in range(rows):
        value = sum(int(number) << (bits * place) for place, number in enumerate(numbers[row]))
        words[row] = np.frombuffer(value.to_bytes(words.shape[1] * 4, "little"), np.uint32)
    return words.view(np.int32)


def gptq_layer(
    n: int,
    k: int,
    bits: int,
    group: int,
    *,
    first: bool = True,
    act_order: bool = False,
    dtype: Any = np.float16,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The tensors of a random layer, and its weight [n, k]: computed in the scales' number type, as GPTQModel does."""
    random = np.random.default_rng(seed)
    size = k if group == -1 else group
    groups = -(-k // size)
    numbers = random.integers(0, 1 << bits, (k, n))
    zeros = random.integers(0, 1 << bits, (groups, n))
    scales = (random.random((groups, n)) * 0.01 + 0.001).astype(dtype)
    index = np.arange(k) // size
    if act_order:
        index = index[random.permutation(k)]
    stored = zeros - 1 & (1 << bits) - 1 if first else zeros
    tensors = {
        "qweight": pack_words(numbers.T, bits).T,
        "qzeros": pack_words(stored, bits),
        "scales": scales,
        "g_idx": index.astype(np.int32),
    }
    weight = (numbers - zeros[index]).astype(scales.dtype) * scales[index]
    return tensors, np.ascontiguousarray(weight.T)


def gptq_packer(bits: int, group: int, *, act_order: bool = False) -> Packer:
    """A packer into GPTQ's tensors: the zero points in the middle, the scales from the largest number of a group."""

    def pack(module: str, weight: Any) -> dict[str, Any]:
        import torch

        n, k = weight.shape
        index = torch.arange(k) // group
        if act_order:
            index = index[torch.randperm(k, generator=torch.Generator().manual_seed(k))]
        middle = 1 << bits - 1
        scales = (
            torch.stack([weight[:, index == one].abs().amax(1) for one in range(k // group)]).div(middle - 1).half()
        )
        numbers = (weight.T / scales[index].float()).round().add(middle).clamp(0, 2 * middle - 1).to(torch.int64)
        stored = torch.full((k // group, n), middle - 1)
        return {
            "qweight": words(numbers.T, bits).T.contiguous(),
            "qzeros": words(stored, bits),
            "scales": scales,
            "g_idx": index.int(),
        }

    return pack


def words(numbers: Any, bits: int) -> Any:
    """Like `pack_words`, in torch and quickly: for 4 and 8 bits."""
    import torch

    each = 32 // bits
    shifted = numbers.reshape(len(numbers), -1, each) << (torch.arange(each) * bits)
    return shifted.sum(2).to(torch.int32)


def awq_packer(group: int) -> Packer:
    """A packer into AWQ's tensors."""

    def pack(module: str, weight: Any) -> dict[str, Any]:
        import torch

        tensors, _ = quantize_awq(weight.numpy(), group)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}

    return pack


def fp8_packer(size: tuple[int, int]) -> Packer:
    """A packer into 8-bit floats with a scale for each block; blocks at the edges may be smaller."""

    def pack(module: str, weight: Any) -> dict[str, Any]:
        import torch

        n, k = weight.shape
        rows, columns = -(-n // size[0]), -(-k // size[1])
        padded = torch.zeros(rows * size[0], columns * size[1])
        padded[:n, :k] = weight.abs()
        scales = padded.reshape(rows, size[0], columns, size[1]).amax((1, 3)) / 448
        spread = scales.repeat_interleave(size[0], 0)[:n].repeat_interleave(size[1], 1)[:, :k]
        return {"weight": (weight / spread).to(torch.float8_e4m3fn), "weight_scale_inv": scales}

    return pack
