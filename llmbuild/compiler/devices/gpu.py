"""Hooks that GPUs have in common; each kind overrides those in which it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbuild.compiler.devices.device import Device

if TYPE_CHECKING:
    from llmbuild.compiler.kernels import KernelSet
    from llmbuild.models.kv_cache import KVCacheLayout

SAMPLING = (
    "multinomial_from_uniform",
    "argsort_probs",
    "sample_with_top_p",
    "sampler_take_probs",
    "sampler_verify_draft_tokens",
    "renormalize_by_top_p",
)
"""All functions that runtimes with a sampler on the device call."""


_PHONE = {"kind": "llvm", "mtriple": "aarch64-linux-android"}
_COMPUTER = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}


class Gpu(Device):
    """A device with a host beside it, whose driver compiles the kernels or for which TVM makes the code."""

    def __init__(self, name: str) -> None:
        self.name = name

    def target(self, device: Mapping[str, Any], host: Mapping[str, Any]) -> Mapping[str, Any]:
        # The host's code checks arguments and launches kernels, which takes the same time however it is optimized, and a third of
        # the time to compile.
        return {**device, "host": {**host, "opt-level": host.get("opt-level", 0)}}

    def beside_any_host(self, target: Any) -> Any:
        """TVM's rules look at the host to tell phones' GPUs from others, and at nothing else of it."""
        from tvm.target import Target

        return target.with_host(Target(_PHONE if "android" in str(target.host) else _COMPUTER))

    def kernels(self) -> KernelSet:
        from llmbuild.compiler.kernels.gpu.kernel_set import KERNELS

        return KERNELS

    def schedules(self, target: Any, *, stock: bool = False) -> list[Any]:  # noqa: ARG002
        from llmbuild.compiler import schedules

        return [*schedules.for_gpu(target), schedules.narrow()]

    def attention_threads(self, target: Any) -> int:  # noqa: ARG002
        """The maximal number of threads in a block of TVM's attention."""
        return 512

    def require_attention(self, layout: KVCacheLayout, target: Any) -> None:
        from llmbuild.compiler.passes.kv_cache import require_every_head

        require_every_head(layout, target, self.attention_threads(target))
