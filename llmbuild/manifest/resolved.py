"""A manifest after validation and matrix expansion: plain frozen values that the planner consumes.

They convert to and from JSON, so that a null build can load the expanded plan without importing pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmbuild.canonical import Json
from llmbuild.quantization.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Source:
    """Where bytes come from.

    `kind` is "path", "gguf" (a local file), "hf", "https", "pypi" or "preset".  `spec` is what
    identifies it: path: {"path"} as written; gguf: {"path"}; hf: {"repo", "revision"}; https: {"url", "sha256"}; pypi: {"name", "version", "path"}; preset: {"name"}.
    """

    kind: str
    spec: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Model:
    """One [models.NAME] table.  `conversation` is the template's resolved JSON object; `metadata` has kebab-case keys and
    holds the [metadata] defaults with the model's own values on top; `generation` the sampling values that were set."""

    name: str
    source: Source
    adapter: Source | None
    model_type: str | None
    source_format: str | None
    float32: str
    conversation: Mapping[str, Json]
    metadata: Mapping[str, int]
    generation: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Platform:
    """One [platforms.NAME] table with its target resolved.

    `compile` is what lower reads of the target (device, host, limits), `link` what link reads (artifact, linker, flags).
    `metadata` has kebab-case keys.  `opt` are the resolved optimization flags.  `system_lib_prefix` None means the default
    of the target ("" for none).
    """

    name: str
    target: str
    compile: Mapping[str, Json]
    link: Mapping[str, Json]
    artifact: str
    metadata: Mapping[str, int]
    opt: Mapping[str, Json]
    system_lib_prefix: str | None


@dataclass(frozen=True, slots=True)
class Combination:
    """One cell of the matrix: a library to build.  `metadata` holds what the build entry sets over platform and model;
    `library` is the library's path in the project ("dist/libs/…so"), `weights` the model directory ("" for a preset)."""

    model: str
    scheme: str
    platform: str
    metadata: Mapping[str, int]
    library: str
    weights: str


@dataclass(frozen=True, slots=True)
class Project:
    """The whole manifest.  `file` is its name as the user gave it, `root` the directory that relative paths start from."""

    name: str
    file: str
    root: str
    output: str
    models: Mapping[str, Model]
    schemes: Mapping[str, Scheme]
    platforms: Mapping[str, Platform]
    matrix: tuple[Combination, ...]
