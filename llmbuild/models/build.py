"""From a configuration and a scheme to the TVM module and its exported form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import IRModule

from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.decoder import Decoder
from llmbuild.models.family import ModelConfig
from llmbuild.models.kv_cache import KVCacheLayout
from llmbuild.models.spec import DecoderSpec
from llmbuild.models.tapped import TappedDecoder
from llmbuild.quantization.layers import GenericKernels, Kernels
from llmbuild.quantization.scheme import Scheme


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """`params` are (name, tvm parameter) in the order of the packed parameters.  The module's Relax functions are made of `spec`,
    the scheme and the kernels.  `inputs` are those of a `TappedDecoder`."""

    module: IRModule
    params: tuple[tuple[str, Any], ...]
    kv_cache: KVCacheLayout
    spec: DecoderSpec
    inputs: tuple[dict[str, Any], ...] | None = None


def export(
    config: ModelConfig, family: DecoderFamily, scheme: Scheme, kernels: Kernels | None = None, *, taps: bool = False
) -> ExportedModel:
    """The exported IRModule with its parameters and the layout of its KV cache; with `taps` that of a `TappedDecoder`."""
    return export_decoder(family.decoder(config), scheme, kernels, taps=taps)


def export_decoder(
    spec: DecoderSpec, scheme: Scheme, kernels: Kernels | None = None, *, taps: bool = False
) -> ExportedModel:
    """The same of a decoder that is described without a configuration."""
    module = (TappedDecoder if taps else Decoder)(spec, scheme, kernels or GenericKernels())
    exported, params = module.export_tvm(module.export_spec())
    inputs = tuple(module.inputs) if isinstance(module, TappedDecoder) else None
    return ExportedModel(exported, tuple(params), module.kv_cache, spec, inputs)
