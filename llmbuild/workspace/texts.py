"""The texts that weights are calibrated with: the project's own, or llmbuild's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbuild.engine.statcache import StatCache
from llmbuild.errors import InputError, UsageError, did_you_mean
from llmbuild.manifest.project import Project
from llmbuild.plan.measuring import CALIBRATION
from llmbuild.plan.observed import Text
from llmbuild.workspace.manifests import place_of

BUNDLED = Path(__file__).parent.parent / "quality" / "data"
"""The texts that come with llmbuild."""


def observe_texts(project: Project, statcache: StatCache) -> Mapping[str, Text]:
    """Each text by its name in labels.  Raises UsageError where a file of the manifest is not there or cannot be read."""
    quality = project.quality
    return {
        CALIBRATION: _observed(project, "calibration-text", quality.calibration_text, f"{CALIBRATION}.txt", statcache),
    }


def _observed(project: Project, key: str, given: str, bundled: str, statcache: StatCache) -> Text:
    if not given:
        return Text(str(BUNDLED / bundled), statcache.digest(BUNDLED / bundled))
    path = Path(project.root) / given
    where = place_of(project, ("quality", key))
    if not path.is_file():
        there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, there)
        raise UsageError(
            f"'{given}' is no file",
            where=where,
            why="weights are calibrated with it",
            fix=near or f"remove {key} for llmbuild's own text",
        )
    try:
        return Text(str(path), statcache.digest(path))
    except InputError as error:
        raise UsageError(f"'{given}' cannot be read", where=where, why=error.why) from error
