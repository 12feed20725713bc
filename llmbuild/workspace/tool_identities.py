"""The identity of every tool in a key: llmbuild's own source files by content, Python packages, TVM's libraries.

No module is imported for it; which files a kind of task may load follows from the imports in them (`imports.py`).  Versions come
from the names of the `*.dist-info` directories on sys.path (what importlib.metadata reads, without its 15 ms), bytes from the
store's memo of file digests.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.canonical import Digest, Json, canonical_json, digest_json
from llmbuild.engine.kind import TaskKind
from llmbuild.engine.seal import SECRET, Seal
from llmbuild.errors import StoreError, ToolchainError
from llmbuild.jsontext import parse_json
from llmbuild.plan.reasons import FAMILY_TOOL, PACKAGE_TOOL, SOURCES_TOOL
from llmbuild.programs.parts import FileTree, Listed
from llmbuild.workspace.programs import PROGRAMS_MEMO, Digests, Programs

if TYPE_CHECKING:
    from llmbuild.workspace.imports import Imports

LIBRARIES: Mapping[str, str] = {"apache-tvm": "tvm", "apache-tvm-ffi": "tvm_ffi"}
"""Distributions whose native libraries are part of their identity, with the package that contains them."""

CONTENTS: Mapping[str, tuple[str, ...]] = {
    "python": (".py",),
    "headers": (".h", ".hpp", ".cc", ".c", ".inc"),
}
"""Other files of such a package that count by content, by their suffixes, as a tool of its own: "apache-tvm python"."""

_NO_PROGRAMS = ("3rdparty", "include", "src", "cmake", "share", "licenses")
"""The directories of such a package that have neither Python nor libraries, but half of its files."""

PER_TASK_TOOLS = frozenset({"linker", FAMILY_TOOL, PACKAGE_TOOL})
"""Tools whose identity depends on the platform, the model or the package and not only on the kind."""

FAMILIES = "models/families/"
"""The directory of the families, each of which is in the keys of its own models alone."""

PACKAGE_KINDS = "packages/kinds/"
"""The directory of the kinds of packages, each of which is in the keys of its own packages alone, with all that it imports."""

TVM_MEMO = "code-generators.json"
"""The file in a store that caches the device kinds that TVM can generate code for."""

_PACKAGE = Path(__file__).parent.parent
_LIBRARY_SUFFIXES = (".so", ".dylib", ".dll", ".pyd")


class Toolchain:
    """Looks up each tool once.  Raises ToolchainError for one that is not installed."""

    def __init__(self, digests: Digests, path: Iterable[str] | None = None, memo: Path | None = None) -> None:
        """`memo` is a file in a store that caches TVM's code generators; without one its libraries are searched each
        time, and nothing is sealed."""
        self._digests = digests
        self._memo = memo
        self.seal = None if memo is None else Seal(memo.with_name(SECRET))
        self.programs = Programs(digests, None if memo is None else memo.with_name(PROGRAMS_MEMO))
        self._generators: frozenset[str] | None = None
        self._path = tuple(sys.path if path is None else path)
        self._own: dict[str, list[str]] | None = None
        self._files: dict[str, Digest] = {}
        self._identities: dict[str, str] = {}
        self._versions: dict[str, str] | None = None
        self._walked: dict[Path, list[Listed]] = {}

    def source_files(self, names: Iterable[str]) -> dict[str, Digest]:
        """The files of llmbuild modules and packages ("llmbuild.linkers"), relative to llmbuild, with their digests."""
        if self._own is None:
            self._own = _by_directory(str(_PACKAGE))
        found: dict[str, Digest] = {}
        for name in names:
            place = name.partition(".")[2].replace(".", "/")
            for relative in self._own.get(place) or [f"{place}.py"]:
                if relative not in self._files:
                    self._files[relative] = self._digests.digest(_PACKAGE / relative)
                found[relative] = self._files[relative]
        return found

    @cached_property
    def llmbuild(self) -> tuple[dict[str, Digest], Digest]:
        """All files of llmbuild with their digests, and the digest over them."""
        files = self.source_files(["llmbuild"])
        return files, digest_json(files)

    @cached_property
    def families(self) -> Mapping[str, dict[str, Digest]]:
        """The files of llmbuild that are in the keys of one family's models alone, by the name of the family's module: its own
        and those of the families that it is made of."""
        names = sorted(
            name for name in self.llmbuild[0] if name.startswith(FAMILIES) and not name.endswith("/__init__.py")
        )

        def files_of(module: str) -> list[str]:
            return [one for one in self._imports.closure([module]) if one in names]

        return self._by_module("families", FAMILIES, files_of)

    @cached_property
    def package_kinds(self) -> Mapping[str, dict[str, Digest]]:
        """The files that each kind of package may load, by the kind's name."""
        return self._by_module("package kinds", PACKAGE_KINDS, lambda module: self._apart.closure([module]))

    def _by_module(
        self, what: str, directory: str, files_of: Callable[[str], list[str]]
    ) -> dict[str, dict[str, Digest]]:
        """By the name of each module of a directory the files that `files_of` lists for it (for its whole name), with their
        digests.  They follow from the content of all files, so they are looked at once for each; `what` names the memo."""
        modules = {
            name.removeprefix(directory).removesuffix(".py"): _dotted(name)
            for name in sorted(self.llmbuild[0])
            if name.startswith(directory) and name.endswith(".py") and not name.endswith("/__init__.py")
        }

        def find() -> Json:
            return {module: list(files_of(name)) for module, name in modules.items()}

        found: Any = self.programs.remembered([what, self.llmbuild[1]], find)
        if not (isinstance(found, dict) and found.keys() == modules.keys() and all(map(self._known, found.values()))):
            found = find()
        return {module: self._digests_of(listed) for module, listed in found.items()}

    def _files_behind(self, kind: TaskKind) -> dict[str, Digest]:
        """The files that a kind's modules may load, with their digests."""

        def find() -> Json:
            return list((self._apart if PACKAGE_TOOL in kind.tools else self._imports).closure(kind.sources))

        # Imports follow from the content of all files, so they are looked at once for each.
        found = self.programs.remembered(["imports", list(kind.sources), self.llmbuild[1]], find)
        return self._digests_of(found if self._known(found) else find())

    @cached_property
    def _imports(self) -> Imports:
        from llmbuild.workspace.imports import Imports

        return Imports(_PACKAGE, list(self.llmbuild[0]))

    @cached_property
    def _apart(self) -> Imports:
        """Imports in which looking up a kind of package leads to no kind: a package's key has its own kind's files besides."""
        from llmbuild.workspace.imports import Imports

        return Imports(_PACKAGE, list(self.llmbuild[0]), (_dotted(PACKAGE_KINDS.removesuffix("/")),))

    def _known(self, names: Json) -> bool:
        """Whether these are names of files of llmbuild: a memo that was damaged counts for nothing."""
        every = self.llmbuild[0]
        return isinstance(names, list) and all(isinstance(name, str) and name in every for name in names)

    def _digests_of(self, names: Any) -> dict[str, Digest]:
        return {name: self.llmbuild[0][name] for name in names}

    def tools_of(self, kind: TaskKind) -> tuple[dict[str, str], dict[str, Digest]]:
        """The tools of a kind's key, without those of a single task; and the source files behind its sources digest, without
        those of families (`families`)."""
        files = self._files_behind(kind)
        if FAMILY_TOOL in kind.tools:
            own = {name for listed in self.families.values() for name in listed}
            files = {name: digest for name, digest in files.items() if name not in own}
        tools = {name: self.identity(name) for name in kind.tools if name not in PER_TASK_TOOLS}
        return {**tools, SOURCES_TOOL: digest_json(files)}, files

    def identity(self, name: str) -> str:
        """`2.4.0` for a Python distribution; `0.27.0.post1+sha256.…` for one whose libraries count too, or for "NAME python", the
        files of one with some suffixes (CONTENTS)."""
        if name not in self._identities:
            distribution, _, contents = name.partition(" ")
            version = self.version(distribution)
            if contents:
                version += f"+sha256.{self._contents_digest(distribution, CONTENTS[contents])}"
            elif name in LIBRARIES:
                version += f"+sha256.{self._library_digest(name, LIBRARIES[name])}"
            self._identities[name] = version
        return self._identities[name]

    def version(self, name: str) -> str:
        """The installed version of a distribution."""
        if self._versions is None:
            self._versions = _installed(self._path)
        version = self._versions.get(_normal(name))
        if version is None:
            import importlib.metadata

            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                raise ToolchainError(
                    f"the Python package {name} is not installed",
                    why=f"it is not on sys.path of {Path(sys.executable).name}",
                    fix="install llmbuild with its dependencies: `pip install llmbuild`",
                ) from None
        return version

    def code_generators(self) -> frozenset[str]:
        """The device kinds that the installed TVM can generate code for: the names that its libraries register.

        The libraries are not loaded: a registered function `target.build.<kind>` has its name in them.
        """
        if self._generators is None:
            key = None if self._memo is None else self.identity("apache-tvm")
            self._generators = self._remembered(key) or self._searched(key)
        return self._generators

    def _remembered(self, key: str | None) -> frozenset[str] | None:
        if self._memo is None:
            return None
        try:
            value = parse_json(self._memo.read_bytes())
            return frozenset(value["kinds"]) if value["tvm"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _searched(self, key: str | None) -> frozenset[str]:
        found: set[str] = set()
        for place in self._places("tvm"):
            for name in self._libraries(place):
                found |= _registered(place / name)
        if self._memo is not None:
            from llmbuild.engine import files

            # A cache that cannot be written costs the memo and nothing else; a build reports what is wrong with it.
            with contextlib.suppress(StoreError, OSError):
                files.write_atomic(self._memo, canonical_json({"tvm": key, "kinds": sorted(found)}))
        return frozenset(found)

    def _places(self, package: str) -> list[Path]:
        """The directories of an installed package."""
        import importlib.util

        spec = importlib.util.find_spec(package)
        return [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]

    def _contents_digest(self, distribution: str, suffixes: tuple[str, ...]) -> Digest:
        """The digest over the files of an installed package with these suffixes, by their paths in it."""
        places = self._places(LIBRARIES[distribution])
        try:
            if suffixes == CONTENTS["python"]:
                found = [[one for one in self._listed(place) if one[0].endswith(suffixes)] for place in places]
            else:
                found = [FileTree(place).walk(lambda name: name.endswith(suffixes)) for place in places]
            return digest_json([self.programs.listed(place, one) for place, one in zip(places, found, strict=True)])
        except OSError as error:
            raise ToolchainError(
                f"{distribution} cannot be read",
                where=str(error.filename),
                why=error.strerror,
                fix=f"reinstall it: `pip install --force-reinstall {distribution}`",
            ) from error

    def _libraries(self, place: Path) -> list[str]:
        """The native libraries of a package by their paths in it."""
        return [one[0] for one in self._listed(place) if _is_library(one[0])]

    def _listed(self, place: Path) -> list[Listed]:
        """The Python files and libraries of a package: one walk through TVM's thousands of files is enough."""
        if place not in self._walked:
            programs = FileTree(place, without=_NO_PROGRAMS)
            self._walked[place] = programs.walk(lambda name: name.endswith(".py") or _is_library(name))
        return self._walked[place]

    def _library_digest(self, distribution: str, package: str) -> Digest:
        """The digest over all native libraries of an installed package, by their names."""
        places = self._places(package)
        found = [(place, name) for place in places for name in self._libraries(place)]
        libraries = {name: self._digests.digest(place / name) for place, name in found}
        if not libraries:
            raise ToolchainError(
                f"{distribution} has no native library",
                why=f"the package {package} is {'incomplete' if places else 'not importable'}",
                fix=f"reinstall it: `pip install --force-reinstall {distribution}`",
            )
        return digest_json(libraries)


def _dotted(file: str) -> str:
    return f"llmbuild.{file.removesuffix('.py').replace('/', '.')}"


def _by_directory(root: str) -> dict[str, list[str]]:
    """The files below a package's directory and those of each directory in it, "" being itself: sorted relative paths.

    A package's data files count as its source; files that Python and editors leave do not.
    """
    found: dict[str, list[str]] = {}

    def walk(directory: str) -> list[str]:
        below: list[str] = []
        with os.scandir(f"{root}/{directory}") as entries:
            for entry in entries:
                path = f"{directory}/{entry.name}" if directory else entry.name
                if entry.is_dir():
                    if entry.name != "__pycache__":
                        below += walk(path)
                elif not entry.name.endswith((".pyc", "~", ".swp")):
                    below.append(path)
        found[directory] = sorted(below)
        return below

    walk("")
    return found


def _registered(library: Path) -> set[str]:
    """The device kinds whose code generators a library registers."""
    if library.stat().st_size == 0:
        return set()
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {name.decode() for name in re.findall(rb"target\.build\.([a-z0-9_]+)\0", data)}


def _is_library(name: str) -> bool:
    return name.endswith(_LIBRARY_SUFFIXES) or ".so." in name


def _installed(path: Iterable[str]) -> dict[str, str]:
    """Name (normalized) -> version of every distribution on the path; the first one found counts, as for an import."""
    versions: dict[str, str] = {}
    for directory in path:
        try:
            names = os.listdir(directory or ".")  # noqa: PTH208 - names suffice, and this is on the way of every plan.
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                distribution, _, version = name.removesuffix(".dist-info").partition("-")
                versions.setdefault(_normal(distribution), version)
    return versions


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
