"""AutoRound: its weights of whole numbers are packed as AutoGPTQ or as AutoAWQ packs them, which `packing_format` says.

`extra_config` has other settings for some modules: those of 16 bits are plain, others may have their own bits and groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmbuild.checkpoints.packed.awq import Awq
from llmbuild.checkpoints.packed.gptq import Gptq
from llmbuild.checkpoints.packed.stated import Quantization

_GPTQ = ("auto_round:auto_gptq", "auto_round:gptq", "auto_gptq")
_AWQ = ("auto_round:auto_awq", "auto_round:awq", "auto_awq")


def auto_round(quantization: Quantization) -> Gptq | Awq:
    """How the weights are unpacked.  Raises InputError for a form that is not read."""
    values = quantization.values
    if values.get("packing_format") is None and values.get("backend") not in (None, "auto"):
        raise quantization.refused("backend", "older versions name a kernel there, and not how the weights are packed")
    quantization.choice(("data_type",), "int", ("int",))
    packed = quantization.choice(("packing_format",), _GPTQ[0], (*_GPTQ, *_AWQ))
    # The keys of GPTQ and AWQ that say how they pack mean nothing here.
    same = {key: values[key] for key in ("bits", "group_size") if key in values}
    if packed in _AWQ:
        return Awq.of(replace(quantization, values=same))
    others = values.get("extra_config")
    exceptions = isinstance(others, Mapping) and any(_differs(other, same) for other in others.values())
    return Gptq.of(replace(quantization, values={**same, "dynamic": exceptions}))


def _differs(other: object, same: Mapping[str, object]) -> bool:
    """Whether a module's own settings pack it in another way than the rest."""
    if not isinstance(other, Mapping):
        return False
    bits = other.get("bits")
    plain = type(bits) is int and bits >= 16
    return not plain and any(other.get(key) not in (None, same.get(key)) for key in ("bits", "group_size"))
