"""A model compiled by our pipeline for OpenCL, whose kernels PoCL runs: the GPU form of `GenericLibrary`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmbuild.models.family import Overrides
from llmbuild.models.registry import family, infer_model_type
from llmbuild.quantization.scheme import Scheme
from tests.helpers.generic_library import GenericLibrary, scheme_of
from tests.helpers.gpu_library import export_some
from tests.helpers.opencl import compiling
from tests.helpers.parse_once import parse_once


class OpenCLLibrary(GenericLibrary):
    """A library for OpenCL (or the named functions of one), with one KV cache.  `device` counts launches and holds the
    source.

    The directory is a checkpoint, or a model's directory in dist/ of that scheme.
    """

    def __init__(
        self,
        directory: Path,
        scheme: str | Scheme = "q0f32",
        functions: Sequence[str] | None = None,
        *,
        optimize: bool = True,
        **overrides: Any,
    ) -> None:
        """Compile only `functions` where given.  Without `optimize` PoCL compiles in a fifth of the time, to slower code."""
        import tvm
        from tvm import relax

        from llmbuild.compiler.devices import find_device
        from llmbuild.compiler.lower import metadata_record
        from llmbuild.compiler.passes.annotate import variable_bounds
        from llmbuild.compiler.pipeline import PassInputs, passes
        from llmbuild.compiler.reuse import directly

        chat = directory / "mlc-chat-config.json"
        self.scheme = scheme_of(scheme)
        if chat.is_file():
            settings = json.loads(chat.read_text())
            self.family = family(settings["model_type"])
            self.config = self.family.restore(settings["model_config"], Overrides(**overrides))
        else:
            source = json.loads((directory / "config.json").read_text())
            self.family = family(infer_model_type(source))
            self.config = self.family.configure(source, Overrides(**overrides))
        with compiling(optimize=optimize) as self.device:
            target = self.device.target
            linear = find_device("opencl").kernels().linear(target, None, directly)
            model = export_some(self.family, self.config, self.scheme, linear, functions)
            metadata = metadata_record({"model_type": self.family.model_type}, self.config, self.scheme, model)
            plan = PassInputs(find_device("opencl"), target, model.kv_cache, variable_bounds(self.config), metadata)
            with target, parse_once(), tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
                executable = relax.build(
                    model.module, target=target, relax_pipeline=tvm.transform.Sequential(passes(plan))
                )
        self.vm = relax.VirtualMachine(executable, tvm.cpu())
        self.weights = self._stored(directory, [name for name, _ in model.params])
        self.cache = None

    def _stored(self, directory: Path, names: list[str]) -> list[Any]:
        """The weights: from a checkpoint, or from a weight directory as a library reads it."""
        import tvm
        from tvm.contrib import tvmjs

        if not (directory / "tensor-cache.json").is_file():
            return self._weights(directory, names)
        stored, _ = tvmjs.load_tensor_cache(str(directory), tvm.cpu())
        return [stored[name] for name in names]
