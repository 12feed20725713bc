"""A model compiled by our pipeline for OpenCL, whose kernels PoCL runs: the GPU form of `GenericLibrary`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbuild.models.family import Overrides
from llmbuild.models.registry import family, infer_model_type
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.generic_library import GenericLibrary
from tests.helpers.opencl import compiling


class OpenCLLibrary(GenericLibrary):
    """All functions of a library for OpenCL, with one KV cache.  `device` counts launches and holds the source."""

    def __init__(self, directory: Path, scheme: str = "q0f32", **overrides: Any) -> None:
        import tvm
        from tvm import relax

        from llmbuild.compiler.kernels import kernels_for
        from llmbuild.compiler.lower import metadata_record
        from llmbuild.compiler.passes.annotate import variable_bounds
        from llmbuild.compiler.pipeline import Plan, pipeline
        from llmbuild.models.build import export

        source = json.loads((directory / "config.json").read_text())
        self.family = family(infer_model_type(source))
        self.scheme = SCHEMES[scheme]
        self.config = self.family.configure(source, Overrides(**overrides))
        model = export(self.config, self.family, self.scheme, kernels_for("opencl"))
        metadata = metadata_record({"model_type": self.family.model_type}, self.config, self.scheme, model)
        with compiling() as self.device:
            target = self.device.target
            plan = Plan("opencl", target, model.kv_cache, variable_bounds(self.config), metadata)
            with target, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
                executable = relax.build(model.module, target=target, relax_pipeline=pipeline(plan))
        self.vm = relax.VirtualMachine(executable, tvm.cpu())
        self.weights = self._weights(directory, [name for name, _ in model.params])
        self.cache = None
