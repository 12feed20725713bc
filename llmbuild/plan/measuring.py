"""The tasks that measure weights, which a plan has only where something needs them.

    quantize[model, reference]              float32 weights as the checkpoint has them
    lower, link[model, scheme, measuring]   a library for one CPU target (`manifest.measuring`); nothing of it is installed

and those that calibrate weights, on which quantize of a scheme with the method "calibrated" depends:

    text[calibration]                       what weights are calibrated with
    lower, link[model, reference, calibrating]   a library with taps, for the same CPU target on all machines
    calibrate[model]                        the second moments of the inputs of linear layers

A manifest's matrix names none of them; what needs one adds it, and a person may type its label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmbuild.checkpoints.names import TOKENIZER_JSON
from llmbuild.engine.labels import make_label, split_label
from llmbuild.engine.task import AllFiles, Files, InputRef
from llmbuild.errors import ToolchainError
from llmbuild.manifest.measuring import CALIBRATING, MEASURING, REFERENCE, REFERENCE_SCHEME
from llmbuild.manifest.project import Combination, Project
from llmbuild.plan.maker import Maker
from llmbuild.quantization.scheme import Scheme
from llmbuild.tasks.known_inputs import INPUT

CALIBRATION = "calibration"
"""The text in labels that weights are calibrated with."""

TENSOR_FILES = Files(("*.bin", "tensor-cache.json"))
"""What a running library reads of weights."""

LIBRARY_FILES = Files(("lib.*",))
TOKENIZER_FILE = Files((TOKENIZER_JSON,))
_KINDS = frozenset({"text", "calibrate"})
"""Kinds that do nothing else."""


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
    for model, _ in measured_pairs(project):
        found |= _of_calibrating(model)
    return frozenset(found)


def calibrating_labels(project: Project) -> frozenset[str]:
    """The labels of the tasks that calibrate, of the models with a scheme that asks for it."""
    calibrated = [cell.model for cell in project.matrix if cell.weights and calibrates(project.schemes[cell.scheme])]
    return frozenset[str]().union(*map(_of_calibrating, calibrated))


def calibrates(scheme: Scheme) -> bool:
    """Whether quantizing goes by what is known of the inputs."""
    return scheme.quantized and scheme.method == "calibrated"


def _of_calibrating(model: str) -> set[str]:
    return {
        make_label("calibrate", model),
        make_label("text", CALIBRATION),
        *(make_label(kind, model, REFERENCE, CALIBRATING) for kind in ("lower", "link")),
        *(make_label(kind, model, REFERENCE) for kind in ("quantize", "config")),
    }


def measures(label: str) -> bool:
    """Whether a label is that of a task that measures."""
    kind, of = split_label(label)
    return kind in _KINDS or bool({MEASURING, CALIBRATING, REFERENCE} & set(of[1:]))


class MeasuringMaker(Maker):
    """Makes the tasks that measure as well."""

    def add_labels(self, labels: Iterable[str]) -> None:
        """The tasks with these labels, of those in `measuring_labels`, and all that they need."""
        for label in sorted(labels):
            kind, of = split_label(label)
            if kind == "text":
                self.text(*of)
            elif kind == "calibrate" or CALIBRATING in of:
                self.calibrate(of[0])
            else:
                self.measuring_library(*of[:2])

    def text(self, name: str) -> str:
        """The task of a text."""
        label = make_label("text", name)
        if label in self.tasks:
            return label
        text = self.observed.texts[name]
        return self.task("text", (name,), {"sha256": text.sha256}, {}, hints={"path": text.path})

    def known_inputs(self, model: str, scheme: Scheme) -> Mapping[str, InputRef]:
        """See `Maker.known_inputs`."""
        return {INPUT: InputRef(self.calibrate(model), AllFiles())} if calibrates(scheme) else {}

    def calibrate(self, model: str) -> str:
        """The task that collects the second moments of a model's inputs."""
        label = make_label("calibrate", model)
        if label in self.tasks:
            return label
        platform = self.project.calibrating
        assert platform is not None, "a project that was read has this platform"
        cell = Combination(model, REFERENCE, CALIBRATING, {}, "", "")
        library = self.library(cell, REFERENCE_SCHEME, platform, exact=True)
        config = make_label("config", model, REFERENCE)
        inputs = {
            "weights": InputRef(make_label("quantize", model, REFERENCE), TENSOR_FILES),
            "library": InputRef(library, LIBRARY_FILES),
            "tokenizer": InputRef(config, TOKENIZER_FILE),
            "text": InputRef(self.text(CALIBRATION), AllFiles()),
        }
        params = {"tokens": self.project.quality.calibration_tokens}
        lack = self.observed.lacks.get(CALIBRATING, {}).get("calibrate")
        return self.task("calibrate", (model,), params, inputs, cell=(model, "", ""), lack=lack)

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
