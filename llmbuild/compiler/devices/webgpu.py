"""WebGPU: a library contains WGSL, which the browser compiles."""

from __future__ import annotations

from llmbuild.compiler.devices.gpu import Gpu


class WebGpu(Gpu):
    sampling = ("argsort_probs", "sample_with_top_p")


DEVICE = WebGpu("webgpu")
