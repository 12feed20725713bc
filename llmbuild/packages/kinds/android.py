"""`android`: what MLC's application for Android takes (docs/guides/android.md).

bundle/mlc-app-config.json
bundle/<model>-<scheme>-MLC/
lib/<abi>/libmodel_android.a
"""

from __future__ import annotations

from typing import ClassVar

from llmbuild.canonical import Json
from llmbuild.packages.kind import Platform
from llmbuild.packages.phone import Phone

ABIS = {"aarch64": "arm64-v8a", "armv7a": "armeabi-v7a", "x86_64": "x86_64", "i686": "x86"}
"""The names that Android's tools have for processors, by the first word of a triple (the NDK's guide "Android ABIs")."""


class Android(Phone):
    """One archive an ABI."""

    name: ClassVar[str] = "android"
    wants: ClassVar[str] = "archives for Android (.tar)"
    library: ClassVar[str] = "libmodel_android.a"

    def takes(self, platform: Platform) -> bool:
        return platform.artifact == "tar" and "-android" in platform.triple and _arch(platform) in ABIS

    def archive(self, platform: Platform) -> str:
        return ABIS[_arch(platform)]

    def place(self, model_id: str, bundled: bool, url: str | None) -> dict[str, Json]:
        # The application has no model_path: bundled weights are pushed to the device under the model's name, and it asks the URL
        # only for files that are not there.  It does not accept an entry without a URL.
        return {"model_url": model_id if url is None else url}


def _arch(platform: Platform) -> str:
    return platform.triple.partition("-")[0]


KIND = Android()
