"""The living labels of a project, whose results a collection keeps."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from llmbuild.engine.seal import Seal
from llmbuild.plan.graph import labels
from llmbuild.plan.measuring import measuring_labels
from llmbuild.workspace.manifests import known_manifests
from llmbuild.workspace.place import MANIFEST


def living(seal: Seal, project: str) -> Container[str] | None:
    """The living labels of a project; None when its manifest is gone.

    A project is identified by its directory, or by the path of a manifest with another name than usual.  A directory stands
    for all its manifests, since older builds of each are recorded under it.  A command leaves the expanded manifest in the
    state directory; where that cannot be read, all labels live.
    """
    place = Path(project)
    if place.is_dir():
        manifests = known_manifests(place, seal)
        there = (place / MANIFEST).is_file() or bool(manifests)
        if (place / MANIFEST).is_file() and MANIFEST not in manifests:
            return _Everything()
    else:
        manifests = {name: one for name, one in known_manifests(place.parent, seal).items() if name == place.name}
        there = place.is_file()
    if not there:
        return None
    if not manifests or None in manifests.values():
        return _Everything()
    known = [one for one in manifests.values() if one is not None]
    return frozenset[str]().union(*(labels(one) | measuring_labels(one) for one in known))


class _Everything:
    def __contains__(self, _label: object) -> bool:
        return True
