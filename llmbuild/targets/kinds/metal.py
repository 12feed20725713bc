"""Metal: GPUs of Apple, whose drivers compile the kernels."""

from __future__ import annotations

from llmbuild.targets.kinds.device_kind import LIMITS, DeviceKind, attributes

KIND = DeviceKind("metal", attributes(f"{LIMITS} max_function_args"))
