"""Observations of the world before planning: plain values, so that the planner needs no disk, clock or network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, Json
from llmbuild.errors import LlmbuildError
from llmbuild.sources.kind import Observation

if TYPE_CHECKING:
    from llmbuild.engine.lack import Lack

DEVICE_TOOL = "device compiler"
"""The tool in a lower task's key that compiles the device's code, where TVM does not do it alone."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A project's own architecture: its file's name and digest, and its text where it may run, else the `error` that says why
    not.  `families` is the digest of the sources of the families that it is made of."""

    name: str
    sha256: Digest
    text: str | None = None
    families: str = ""
    error: LlmbuildError | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a project or of llmbuild: where it is, and the digest of its content."""

    path: str
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Observed:
    """`sources` and `adapters` by model name (a preset has none), `presets` the configuration of a preset model by model
    name, `tools` by task kind (tool name to identity, llmbuild's own sources among them), `linkers` the linker's
    identity by platform name, `source_files` the files behind each "llmbuild sources" digest, `devices` what compiles the
    device's code by platform name, where that is a tool of its own; `variables` those of the environment that a target names,
    by platform name, each with its identity; `lacks` what is missing, by platform name and task kind ("lower", "link");
    `gone` the errors of sources that are taken as the lock file has them, by the label of their fetch task; `families` the
    digest of each family's own sources by its model type, and `every_family` that over all of them; `types` the model types of
    presets and `architectures` the architectures that are the project's own, by model name; `of_packages` the sources of packages
    by the label of their fetch task, and `package_kinds` the digest of the sources of each kind of package; `texts` those that
    weights are measured on, by the names in their labels."""

    sources: Mapping[str, Observation]
    tools: Mapping[str, Mapping[str, str]]
    linkers: Mapping[str, str]
    adapters: Mapping[str, Observation] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    source_files: Mapping[Digest, Mapping[str, Digest]] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lacks: Mapping[str, Mapping[str, Lack]] = field(default_factory=dict)
    gone: Mapping[str, LlmbuildError] = field(default_factory=dict)
    families: Mapping[str, Digest] = field(default_factory=dict)
    every_family: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    of_packages: Mapping[str, Observation] = field(default_factory=dict)
    package_kinds: Mapping[str, Digest] = field(default_factory=dict)
    texts: Mapping[str, Text] = field(default_factory=dict)
