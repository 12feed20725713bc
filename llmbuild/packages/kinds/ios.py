"""`ios`: what MLC's application for iPhones and iPads, and for Macs by Catalyst, takes (docs/guides/ios.md).

bundle/mlc-app-config.json
bundle/<model>-<scheme>-MLC/
lib/libmodel_iphone.a
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from llmbuild.canonical import Json
from llmbuild.packages.kind import Mistake, Platform, Use
from llmbuild.packages.phone import Phone


class Ios(Phone):
    """One archive: devices and Catalyst are different systems, so a package is for one of them."""

    name: ClassVar[str] = "ios"
    wants: ClassVar[str] = "archives for iOS or Mac Catalyst (.tar)"
    library: ClassVar[str] = "libmodel_iphone.a"

    def takes(self, platform: Platform) -> bool:
        return platform.artifact == "tar" and "-apple-ios" in platform.triple

    def archive(self, platform: Platform) -> str:
        return ""

    def mistakes(self, options: Mapping[str, Json], uses: Sequence[Use]) -> Iterator[Mistake]:
        systems = {use.platform.triple: use.platform for use in uses}
        if len(systems) > 1:
            one, other = list(systems.values())[:2]
            yield Mistake(
                f"the platforms {one.name} and {other.name} do not go into one {self.library}",
                why=f"one is for {one.triple}, the other for {other.triple}",
                fix=f'choose one: platforms = ["{one.name}"], and make another package for the other',
            )
            return
        yield from super().mistakes(options, uses)

    def place(self, model_id: str, bundled: bool, url: str | None) -> dict[str, Json]:
        return {"model_path": model_id} if bundled else {"model_url": url}


KIND = Ios()
