"""The tasks that measure weights, which a plan has only where something needs them.

    quantize[model, reference]   float32 weights as the checkpoint has them
    lower, link[model, scheme, measuring]   a library for one CPU target (`manifest.measuring`); nothing of it is installed

A manifest's matrix names none of them; what needs one adds it, and a person may type its label.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmbuild.engine.labels import make_label, split_label
from llmbuild.errors import ToolchainError
from llmbuild.manifest.measuring import MEASURING, REFERENCE, REFERENCE_SCHEME
from llmbuild.manifest.project import Combination, Project
from llmbuild.plan.maker import Maker


def measured_pairs(project: Project) -> tuple[tuple[str, str], ...]:
    """The models with weights and their schemes that can be measured."""
    return tuple(dict.fromkeys((cell.model, cell.scheme) for cell in project.matrix if cell.weights))


def measuring_labels(project: Project) -> frozenset[str]:
    """The labels of all tasks that measure, whether something needs them or not."""
    found: set[str] = set()
    for model, scheme in measured_pairs(project) if project.measuring is not None else ():
        for one in (scheme, REFERENCE):
            found |= {make_label(kind, model, one, MEASURING) for kind in ("lower", "link")}
        found |= {make_label(kind, model, REFERENCE) for kind in ("quantize", "config")}
    return frozenset(found)


def measures(label: str) -> bool:
    """Whether a label is that of a task that measures."""
    return bool({MEASURING, REFERENCE} & set(split_label(label)[1][1:]))


class MeasuringMaker(Maker):
    """Makes the tasks that measure as well."""

    def add_labels(self, labels: Iterable[str]) -> None:
        """The tasks with these labels, of those in `measuring_labels`, and all that they need."""
        for label in sorted(labels):
            _, (model, scheme, *_) = split_label(label)
            self.measuring_library(model, scheme)

    def measuring_library(self, model: str, scheme: str) -> str:
        """The link task of the library that runs a scheme's weights, or with REFERENCE those of the checkpoint.

        Raises ToolchainError where there is no target for this machine's CPU.
        """
        label = make_label("link", model, scheme, MEASURING)
        if label in self.tasks:
            return label
        platform = self.project.measuring
        if platform is None:
            raise ToolchainError(
                "weights cannot be measured on this machine", why="llmbuild has no target for its CPU that runs here"
            )
        cell = Combination(model, scheme, MEASURING, {}, "", "")
        if scheme == REFERENCE:
            return self.library(cell, REFERENCE_SCHEME, platform, exact=True)
        return self.library(cell, self.project.schemes[scheme], platform)
