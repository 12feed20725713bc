"""The modules that describe architectures (configuration, parameters, names in a checkpoint), for declarations of kinds.

How a family builds a TVM module is not among them: new kernels neither quantize again nor write a configuration again.
"""

from __future__ import annotations

_FAMILIES = ("gpt_neox", "llama", "mistral", "qwen2", "qwen3")
_DESCRIPTION = (
    *("architecture", "config_classes", "config_json", "configuration", "family", "layer_types", "maths_keys"),
    *("parameter", "parameters", "registry", "rope", "spec", "values"),
)

ARCHITECTURES = tuple(f"llmbuild.models.{module}" for module in (*_DESCRIPTION, *_FAMILIES))
