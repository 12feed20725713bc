"""The words that other tools use for a target of llmbuild: the devices of `mlc_llm compile --device`, and plain speech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmbuild.errors import did_you_mean

WORDS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("x86_64-linux-cpu", "aarch64-linux-cpu"),
    "llvm": ("x86_64-linux-cpu", "aarch64-linux-cpu"),
    "auto": ("x86_64-linux-cpu-native",),
    "native": ("x86_64-linux-cpu-native",),
    "cuda": ("x86_64-linux-cuda", "aarch64-linux-cuda"),
    "nvidia": ("x86_64-linux-cuda", "aarch64-linux-cuda"),
    "jetson": ("aarch64-linux-cuda",),
    "rocm": ("x86_64-linux-rocm",),
    "amd": ("x86_64-linux-rocm",),
    "vulkan": ("x86_64-linux-vulkan", "x86_64-windows-vulkan"),
    "opencl": ("x86_64-linux-opencl", "aarch64-android-opencl"),
    "mali": ("aarch64-linux-mali",),
    "adreno": ("aarch64-android-adreno",),
    "metal": ("aarch64-macos-metal", "x86_64-macos-metal"),
    "metal:x86-64": ("x86_64-macos-metal",),
    "mac": ("aarch64-macos-metal", "x86_64-macos-metal"),
    "macos": ("aarch64-macos-metal", "x86_64-macos-metal"),
    "macabi": ("aarch64-macabi-metal",),
    "iphone": ("aarch64-ios-metal",),
    "ipad": ("aarch64-ios-metal",),
    "ios": ("aarch64-ios-metal",),
    "android": ("aarch64-android-opencl", "aarch64-android-adreno"),
    "android:adreno": ("aarch64-android-adreno",),
    "android:adreno-so": ("aarch64-android-adreno-so",),
    "windows": ("x86_64-windows-cpu", "x86_64-windows-vulkan"),
    "windows:adreno_x86": ("x86_64-windows-opencl",),
    "webgpu": ("wasm32-webgpu",),
    "web": ("wasm32-webgpu",),
    "wasm": ("wasm32-webgpu",),
    "browser": ("wasm32-webgpu",),
}
"""A word, and the targets that it may denote."""


def nearest_target(word: str, known: Iterable[str]) -> str | None:
    """A sentence that proposes targets for a word that names none, or None when no name is near."""
    names = list(known)
    spoken = word.strip().lower()
    meant = WORDS.get(spoken) or WORDS.get(spoken.removesuffix(":generic")) or ()
    found = [name for name in meant if name in names]
    if found:
        return f"'{word}' is spelled {' or '.join(repr(name) for name in found)} here"
    return did_you_mean(word, names)
