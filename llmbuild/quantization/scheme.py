"""A quantization scheme as data, and the table of the schemes that MLC LLM names.

A scheme's name spells its parts: `q4f16_1` is 4 bits, computed in float16, layout 1.  Layout `NK` keeps a linear layer's
packed weight as [outputs, packed inputs], `KN` stores it transposed.  Layout `AWQ` is that of checkpoints which come packed
(`llmbuild.quantization.awq`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from llmbuild.canonical import Json
from llmbuild.quantization.overrides import Bits, Override

ComputeDtype = Literal["float16", "bfloat16", "float32"]
Layout = Literal["NK", "KN", "AWQ"]
Method = Literal["round", "search", "calibrated"]
"""How scales and numbers are chosen: what reads them sees no difference."""
CPU_WORDS = 4
"""The kernels for CPUs take groups of so many words, 32 of 4 bits or 40 of 3, and of a multiple of twice as many; with outputs
beside each other of any multiple."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """`bits` 0 means not quantized.  `group_size` elements along the input axis share one scale.  `of` gives the scheme of a
    parameter, which `overrides` may be meant for."""

    name: str
    bits: Bits
    dtype: ComputeDtype
    group_size: int = 0
    layout: Layout = "NK"
    quantize_embedding: bool = True
    quantize_head: bool = True
    method: Method = "round"
    overrides: tuple[Override, ...] = ()

    @property
    def quantized(self) -> bool:
        return self.bits != 0

    @property
    def comes_packed(self) -> bool:
        """Whether the checkpoint's own packed weights are stored unchanged."""
        return self.layout == "AWQ"

    @property
    def has_cpu_kernels(self) -> bool:
        """Whether llmbuild has kernels of its own for the linear layers on a CPU, which read whole vectors of words."""
        return all(part._has_cpu_kernels for part in self.parts)

    @property
    def _has_cpu_kernels(self) -> bool:
        if self.inputs_first:
            return self.words_per_group % CPU_WORDS == 0
        return not self.quantized or self._in_whole_vectors

    @property
    def rounds_activations(self) -> bool:
        """Whether products of small whole numbers serve linear layers on a CPU that has them."""
        return any(part.quantized and part.layout == "NK" and part._in_whole_vectors for part in self.parts)

    @property
    def _in_whole_vectors(self) -> bool:
        return self.words_per_group == CPU_WORDS or self.words_per_group % (2 * CPU_WORDS) == 0

    @property
    def inputs_first(self) -> bool:
        """Whether a linear layer's packed weight is stored as [inputs, outputs]."""
        return self.layout in ("KN", "AWQ")

    @property
    def max_int(self) -> int:
        """The largest magnitude of a quantized value: 2^(bits-1) - 1, which is also the zero point."""
        return (1 << (self.bits - 1)) - 1

    @property
    def elements_per_word(self) -> int:
        """The number of quantized elements in a uint32 word (10 of 3 bits, 8 of 4 bits, 4 of 8 bits)."""
        return 32 // self.bits

    @property
    def words_per_group(self) -> int:
        return self.group_size // self.elements_per_word

    @property
    def parts(self) -> tuple[Scheme, ...]:
        """The schemes that parameters may have, without overrides: that of most parameters, and those of overrides."""
        rest = replace(self, overrides=())
        return tuple(dict.fromkeys((rest, *(rest._overridden(one) for one in self.overrides))))

    def of(self, *names: str) -> Scheme:
        """The scheme, without overrides, of the parameter with these names (see `overrides`); a tied embedding has two."""
        if not self.overrides:
            return self
        rest = replace(self, overrides=())
        last = next((one for one in reversed(self.overrides) if one.matches(names)), None)
        return rest if last is None else rest._overridden(last)

    def _overridden(self, one: Override) -> Scheme:
        """What an override is meant for is packed whatever the scheme says of embedding and head."""
        if one.bits == 0:
            return replace(self, bits=0, group_size=0, layout="NK")
        return replace(self, bits=one.bits, group_size=one.group_size, quantize_embedding=True, quantize_head=True)

    def to_json(self) -> Mapping[str, Json]:
        """All but the method, which no library and no configuration depends on."""
        own = {name: value for name, value in asdict(self).items() if name not in ("method", "overrides")}
        return own | ({"overrides": [asdict(one) for one in self.overrides]} if self.overrides else {})

    def record(self) -> Mapping[str, Json]:
        """What a library records of its scheme besides the name: by shapes alone nobody sees how many inputs a weight has."""
        sizes = [part.group_size for part in self.parts if part.quantized]
        return {"group_size": sizes[0]} if sizes else {}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Scheme:
        overrides = tuple(Override(**one) for one in value.get("overrides", ()))
        return Scheme(**{**value, "overrides": overrides})


def _group(
    name: str, bits: Literal[3, 4, 8], dtype: ComputeDtype, layout: Literal["NK", "KN"], *, whole: bool = True
) -> Scheme:
    return Scheme(name, bits, dtype, 40 if bits == 3 else 32, layout, whole, whole)


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f16", 0, "float16"),
        Scheme("q0bf16", 0, "bfloat16"),
        Scheme("q0f32", 0, "float32"),
        _group("q3f16_0", 3, "float16", "KN"),
        _group("q3f16_1", 3, "float16", "NK"),
        _group("q4f16_0", 4, "float16", "KN"),
        _group("q4f16_1", 4, "float16", "NK"),
        _group("q4f16_2", 4, "float16", "NK", whole=False),
        _group("q4f32_1", 4, "float32", "NK"),
        _group("q4bf16_0", 4, "bfloat16", "KN"),
        _group("q4bf16_1", 4, "bfloat16", "NK"),
        _group("q8f16_1", 8, "float16", "NK"),
        _group("q8f32_1", 8, "float32", "NK"),
        # The second name is the one that newer releases of MLC LLM have for the first.
        Scheme("q4f16_awq", 4, "float16", 128, "AWQ", quantize_embedding=False, quantize_head=False),
        Scheme("q4f16_autoawq", 4, "float16", 128, "AWQ", quantize_embedding=False, quantize_head=False),
    )
}
