"""A manifest after validation and matrix expansion: plain frozen values that the planner consumes.

They convert to and from JSON, so that a null build can load the expanded plan without importing pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmbuild.canonical import Json
from llmbuild.quantization.scheme import Scheme
from llmbuild.sources.kind import Source


@dataclass(frozen=True, slots=True)
class Model:
    """One [models.NAME] table, with a source or the name of a preset.

    `conversation` is the template's resolved JSON object, or the word that stands for the
    checkpoint's own; `metadata` has kebab-case keys: the [metadata] defaults with the
    model's own values on top; `ignore_keys` count as absent of config.json; `generation` the sampling values that were set;
    `architecture` is the name of the project's own file of the model type, where it has one.
    """

    name: str
    source: Source | None
    preset: str | None
    adapter: Source | None
    model_type: str | None
    ignore_keys: Sequence[str]
    source_format: str | None
    float32: str
    conversation: Mapping[str, Json] | str
    system_prompt: str | None
    metadata: Mapping[str, int]
    generation: Mapping[str, Json]
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Platform:
    """One [platforms.NAME] table with its target resolved.

    `compile` is the part of the target that lower reads, `{"device": …, "host": …}` as TVM's Target takes them, and `archs`;
    `link` the part that link reads (`triple`, `flags`, and `linker`, `compiler`, `minimum-os`, `needed` where the target gives
    them).  `artifact` is one of so, dylib, dll, tar, wasm.  `metadata` has kebab-case keys and only the values that the
    platform itself sets.  `opt` are the resolved optimization flags.  `activations` says how a CPU rounds the input of products,
    None on GPUs.  `system_lib_prefix` is the template of the symbols'
    prefix ("" for none); it is None for a shared library, which is no system library.  `features` are what a library that
    computes in a number type requires of the device that runs it; `tools` the commands that must be on PATH, with how to
    install them.  `by_machine` is true where the machine that builds decided which target it is.  With `taps`, which no table
    can say, a library returns the inputs of its linear layers and does nothing else.
    """

    name: str
    target: str
    compile: Mapping[str, Json]
    link: Mapping[str, Json]
    artifact: str
    metadata: Mapping[str, int]
    opt: Mapping[str, Json]
    system_lib_prefix: str | None
    activations: str | None = None
    features: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tools: Sequence[Mapping[str, str]] = field(default_factory=list)
    by_machine: bool = False
    taps: bool = False


@dataclass(frozen=True, slots=True)
class Combination:
    """One cell of the matrix: a library to build.  `metadata` has the values that the build entry sets over platform and model,
    and the target's defaults for unset ones; on top of the platform's and the model's it gives the effective values.  `library`
    is the library's path in the project ("dist/libs/…so"), `weights` the model directory ("" for a preset).  `by_pattern` is true
    where the manifest does not name the platform, but a pattern that fits it: it is built where this machine can."""

    model: str
    scheme: str
    platform: str
    metadata: Mapping[str, int]
    library: str
    weights: str
    by_pattern: bool = False


@dataclass(frozen=True, slots=True)
class PackagedLibrary:
    """One library of a package, a cell of the matrix.  `archive` names the joined archive that it goes into, "" where there is
    one for all; None where it stays a file of its own."""

    model: str
    scheme: str
    platform: str
    archive: str | None


@dataclass(frozen=True, slots=True)
class Package:
    """One [package.NAME] table.

    `kind` is the name of a package kind, `options` the keys of its own that are set, `sources` what it asks for besides models,
    by name; `output` the folder's path in the project; `memory` the most bytes that a model may need where it runs.
    """

    name: str
    kind: str
    libraries: Sequence[PackagedLibrary]
    options: Mapping[str, Json]
    sources: Mapping[str, Source]
    output: str
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """One [publish.NAME] table.  `to` is a destination with {model} and {quantization} in it, `models`, `schemes` and
    `platforms` are names of the matrix (None for all), `content` is "model" or "checkpoint"."""

    name: str
    to: str
    models: Sequence[str] | None = None
    schemes: Sequence[str] | None = None
    platforms: Sequence[str] | None = None
    content: str = "model"
    private: bool | None = None
    revision: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """The [quality] table: `calibration_text` is the file that weights are calibrated with, relative to the manifest ("" for
    llmbuild's own), of which `calibration_tokens` are read."""

    calibration_text: str = ""
    calibration_tokens: int = 32768


_NAMED = ("models", "schemes", "platforms", "packages", "publish")
"""The tables of a project by name; each has its name in it too."""


@dataclass(frozen=True, slots=True)
class Project:
    """The whole manifest.  `file` is its name as the user gave it, `root` the directory that relative paths start from.

    `measuring` is the platform of the libraries that measure weights (`manifest.measuring`), None where this machine has none,
    and `calibrating` that of those that calibrate.
    """

    name: str
    file: str
    root: str
    output: str
    models: Mapping[str, Model]
    schemes: Mapping[str, Scheme]
    platforms: Mapping[str, Platform]
    matrix: tuple[Combination, ...]
    provenance: bool = False
    packages: Mapping[str, Package] = field(default_factory=dict)
    publish: Mapping[str, Publish] = field(default_factory=dict)
    measuring: Platform | None = None
    calibrating: Platform | None = None
    quality: Quality = field(default_factory=Quality)

    def to_json(self) -> Mapping[str, Json]:
        """A JSON value that `from_json` turns back into an equal project.

        The named tables are lists: canonical JSON sorts the keys of objects, and the manifest's order is part of what is shown.
        """
        value: dict[str, Any] = asdict(self)
        return {**value, **{table: list(value[table].values()) for table in _NAMED}}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Project:
        """The inverse of `to_json`; raises KeyError or TypeError when the value is not of this shape."""
        models = {}
        for model in value["models"]:
            source, adapter = model["source"], model["adapter"]
            models[model["name"]] = Model(
                **{
                    **model,
                    "source": None if source is None else Source(**source),
                    "adapter": None if adapter is None else Source(**adapter),
                }
            )
        packages = {}
        for package in value["packages"]:
            sources = {key: Source(**source) for key, source in package["sources"].items()}
            libraries = tuple(PackagedLibrary(**library) for library in package["libraries"])
            packages[package["name"]] = Package(**{**package, "sources": sources, "libraries": libraries})
        return Project(
            name=value["name"],
            file=value["file"],
            root=value["root"],
            output=value["output"],
            models=models,
            schemes={scheme["name"]: Scheme.from_json(scheme) for scheme in value["schemes"]},
            platforms={platform["name"]: Platform(**platform) for platform in value["platforms"]},
            matrix=tuple(Combination(**combination) for combination in value["matrix"]),
            provenance=value["provenance"],
            packages=packages,
            publish={publish["name"]: Publish(**publish) for publish in value["publish"]},
            measuring=None if value["measuring"] is None else Platform(**value["measuring"]),
            calibrating=None if value["calibrating"] is None else Platform(**value["calibrating"]),
            quality=Quality(**value["quality"]),
        )
