"""The interface of a package kind: which libraries it takes, what must be right of them, and the folder that it writes.

A kind is asked twice: when a manifest is read, with what is known before anything is built (`Use`), and by the package task,
with the files (`Package`).  It is stateless, and its module is cheap to import: a plan imports it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from llmbuild.canonical import Digest, Json


@dataclass(frozen=True, slots=True)
class Platform:
    """What a kind is asked about: a platform's name in the manifest, the artifact of its libraries (so, dylib, dll, tar, wasm),
    the LLVM triple of its host ("" where its target names none), the kind of TVM's device target (llvm, webgpu, metal, …), and
    the template of its system-library prefix ("" for none, as that of a shared library)."""

    name: str
    artifact: str
    triple: str
    device: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A library that a package will have: the names of its model and its scheme, and its platform."""

    model: str
    scheme: str
    platform: Platform


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a package, its reason and its cure.  It lies in the `key` of the platform `platform`, else in the
    package's own `key`, else in the package as a whole."""

    what: str
    why: str | None = None
    fix: str | None = None
    key: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a package is made of: which input of the task has it under which path, where it can be read, and what it is
    (SHA-256 and size in bytes), which nobody has to compute again."""

    source: str
    name: str
    path: Path
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Library:
    """A built library: its platform, its file, and its own record (`metadata.json`, which is its `_metadata` with
    `system_lib_prefix` and `requires`)."""

    platform: Platform
    file: InputFile
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A model in one scheme: its parsed mlc-chat-config.json, the files of its model directory by their names there, and its
    libraries in the order of the manifest's platforms."""

    model: str
    scheme: str
    config: Mapping[str, Any]
    files: Mapping[str, InputFile]
    libraries: Sequence[Library]

    @property
    def model_id(self) -> str:
        """MLC's name of the model: the name of its directory."""
        return f"{self.model}-{self.scheme}-MLC"

    def library_name(self, library: Library) -> str:
        """The name of the file of one of its libraries, as a build names it."""
        return f"{self.model}-{self.scheme}-{library.platform.name}.{library.platform.artifact}"


@dataclass(frozen=True, slots=True)
class Package:
    """What a package is made of.

    `options` are the keys of the manifest that the kind takes and that are set; `archives` the joined archives by what
    `PackageKind.archive` returned; `sources` the files of each source that the kind asked for, by its name.
    """

    options: Mapping[str, Json]
    members: Sequence[Member]
    archives: Mapping[str, InputFile] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, InputFile]] = field(default_factory=dict)


class Out(Protocol):
    """The folder that a package becomes.  Names are relative, with forward slashes."""

    def pass_on(self, file: InputFile, name: str) -> None:
        """Put a file into the folder as it is: it is neither read nor copied."""

    def write(self, name: str, text: str) -> None:
        """Write a text as UTF-8."""

    def write_json(self, name: str, value: Json) -> None:
        """Write a JSON value as text with an indent of two, its keys in their order."""


class PackageKind(ABC):
    """A kind of package."""

    name: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()
    """The keys of [package.NAME] that it takes beside those that all kinds take."""
    sequences: ClassVar[int] = 1
    """Conversations at once for which its runtime makes room, as far as a library takes them: they count in the memory that a
    library needs."""
    batches: ClassVar[bool] = False
    """Whether its runtime calls the functions for several conversations, as MLCEngine does for one too."""
    wants: ClassVar[str]
    """What libraries it takes, for messages: "libraries for browsers (.wasm)"."""

    @abstractmethod
    def takes(self, platform: Platform) -> bool:
        """Whether libraries of this platform can be in such a package."""

    def archive(self, platform: Platform) -> str | None:
        """The archive that the libraries of this platform are joined into: "" or a word where there are several, such as the ABI;
        None where a library stays a file of its own.  The word is part of the label `join[PACKAGE, WORD]`."""
        return None

    def sources(self, options: Mapping[str, Json]) -> Mapping[str, str]:
        """Further sources as a manifest would write them ("npm:@scope/name==1.0"), each by the name of the option that names
        another: they are fetched by `fetch[PACKAGE, NAME]` and pinned in the lock file."""
        return {}

    def mistakes(self, options: Mapping[str, Json], uses: Sequence[Use]) -> Iterable[Mistake]:
        """What is wrong with the options or with libraries that `takes` let in."""
        return ()

    @abstractmethod
    def write(self, package: Package, out: Out) -> None:
        """Write the folder.  The same package gives the same bytes.  Raises LlmbuildError."""
