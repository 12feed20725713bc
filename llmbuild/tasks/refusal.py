"""What a task would refuse of a checkpoint, by the files that describe it alone: no weights are needed for the answer.

A plan asks before weights are fetched, and `llmbuild init` before it writes a manifest.  What only tensors decide is left to
the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbuild.errors import LlmbuildError


def refusal(kind: str, params: Mapping[str, Any], config: Mapping[str, Any]) -> LlmbuildError | None:
    """The error with which a config or a quantize task with these parameters would refuse a checkpoint, None where it would
    not by `config`, the content of config.json."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type
    from llmbuild.tasks.config import overrides

    try:
        architecture = family(params["model-type"] or infer_model_type(config))
        architecture.configure(config, overrides(params["metadata"]) if kind == "config" else Overrides())
        if kind == "quantize":
            _require_fitting(params["scheme"], config)
    except LlmbuildError as error:
        return error
    return None


def _require_fitting(scheme_json: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise InputError where a scheme does not fit how the weights were quantized according to config.json."""
    from llmbuild.quantization.awq import require_described
    from llmbuild.quantization.scheme import Scheme

    scheme = Scheme.from_json(scheme_json)
    if scheme.comes_packed:
        require_described(config, scheme)
