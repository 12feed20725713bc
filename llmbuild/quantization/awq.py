"""AWQ: linear layers that AutoAWQ has packed already, and that are stored unchanged.

The format is AutoAWQ's "GEMM": of a weight [n, k], `qweight` [k, n / 8] and `qzeros` [k / group, n / 8] hold 4-bit numbers,
eight to a 32-bit word, and `scales` is [k / group, n]; an element is (q - zero) * scale.  Each column of the checkpoint's
tensors belongs to one output, so that layers which MLC joins (q, k and v; gate and up) are joined column by column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmbuild.errors import InputError, Where
from llmbuild.quantization.scheme import Scheme

if TYPE_CHECKING:
    import numpy as np

    from llmbuild.checkpoints.packed.stated import Quantization
    from llmbuild.quantization.ports import PlainParameter

NAMES = ("qweight", "qzeros", "scales")

_DEFAULTS: Mapping[str, object] = {"bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
"""The defaults of quantization_config; of the form that llmbuild reads, only the group size may differ."""


@dataclass(frozen=True, slots=True)
class AwqTensor:
    """One of the three tensors of a packed layer: a `Parameter` that is never quantized."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    dtype: Literal["uint32"] | None
    role: str = "plain"
    axis: int = 1
    in_order: bool = False

    @property
    def modules(self) -> tuple[str, ...]:
        return (self.name.rpartition(".")[0],)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def source_dtypes(self) -> tuple[str, ...]:
        return ("int32", "uint32") if self.dtype == "uint32" else ("float16", "bfloat16", "float32")

    def assemble(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """The joined value [shape]; the bits of packed numbers, which are signed in torch, stay unchanged."""
        import numpy as np

        value = np.concatenate(tensors, axis=self.axis)
        return value if self.dtype is None else value.view(np.uint32)


def packed_shapes(scheme: Scheme, n: int, k: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Shapes of qweight, qzeros and scales of a weight [n, k]."""
    words, groups = n // scheme.elements_per_word, k // scheme.group_size
    return (k, words), (groups, words), (groups, n)


def shift(column: Any) -> Any:
    """The bit offset in its word of an output's number: the eight are in the order 0, 2, 4, 6, 1, 3, 5, 7."""
    place = column % 8
    return (place % 2 * 4 + place // 2) * 4


def awq_tensors(
    parameters: Sequence[PlainParameter], quantization: Quantization | None, scheme: Scheme
) -> list[PlainParameter]:
    """The model's parameters with the three tensors of each linear layer in place of its weight.

    `quantization` is what the configuration says of the weights.  Raises InputError when the checkpoint is not one of AWQ that
    the scheme describes.
    """
    require_described(quantization, scheme)
    result: list[PlainParameter] = []
    for parameter in parameters:
        if parameter.role == "linear":
            result.extend(_tensors(parameter, scheme))
        else:
            result.append(parameter)
    return result


def _tensors(layer: PlainParameter, scheme: Scheme) -> list[AwqTensor]:
    n, k = layer.shape
    if not layer.in_order:
        what = f"{layer.name} holds queries, keys and values head by head, which AWQ's columns cannot be sorted into"
        raise InputError(f"{scheme.name} does not fit this architecture", why=what, fix="choose another quantization")
    if n % scheme.elements_per_word or k % scheme.group_size:
        raise InputError(
            f"{scheme.name} does not fit {layer.name} of shape [{n}, {k}]",
            why=f"outputs come in words of {scheme.elements_per_word} and inputs in groups of {scheme.group_size}",
            fix="choose another quantization",
        )
    module = layer.name.removesuffix(".weight")
    sources = [source.removesuffix(".weight") for source in layer.sources]
    return [
        AwqTensor(
            f"{module}.{name}",
            shape,
            tuple(f"{source}.{name}" for source in sources),
            None if name == "scales" else "uint32",
        )
        for name, shape in zip(NAMES, packed_shapes(scheme, n, k), strict=True)
    ]


def require_described(quantization: Quantization | None, scheme: Scheme) -> None:
    """Raise InputError where a configuration does not describe a checkpoint of AWQ that fits the scheme."""
    if quantization is None or quantization.method != "awq":
        raise InputError(
            f"{scheme.name} needs a checkpoint that was quantized by AWQ",
            where=Where("config.json", key="quantization_config") if quantization is None else quantization.where(),
            why="this one is not quantized" if quantization is None else f"its method is {quantization.label}",
            fix="name a checkpoint that AutoAWQ packed, or choose a scheme that quantizes it here, such as q4f16_1",
        )
    wanted = {**_DEFAULTS, "group_size": scheme.group_size}
    for key, value in wanted.items():
        given = quantization.values.get(key, _DEFAULTS[key])
        # AutoAWQ writes "GEMM", transformers "gemm".
        if (given.lower() if isinstance(given, str) else given) == value:
            continue
        fix = "take another checkpoint: this form of AWQ is not supported"
        if key == "group_size" and isinstance(given, int) and given > 0 and given % scheme.elements_per_word == 0:
            fix = f'define a scheme: [quantizations.NAME] base = "{scheme.name}", group-size = {given}'
        raise InputError(
            f"{scheme.name} does not describe this checkpoint",
            where=quantization.where(key),
            why=f"{key} is {given}, and the scheme has {value}",
            fix=fix,
        )
