"""The names of targets: of their files, aliases of them, and the words that other tools have for them.

An alias is a name for a platform that needs no table, such as "web"; a word is what messages translate, such as the devices of
`mlc_llm compile --device`.  Both stand in the target's own file: [target] aliases and words.  `host` is the alias of the CPU of
the machine that builds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from llmbuild.errors import UsageError, did_you_mean
from llmbuild.printable import either

HOST = "host"
"""The alias that means the target of this machine's CPU."""

_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
_SYSTEMS = {"darwin": "macos", "win32": "windows"}


def bundled_directory() -> Path:
    """Where llmbuild's own target files are: inside an installed wheel, or at the top of a source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_targets"
    return installed if installed.is_dir() else package.parent / "targets"


def search_path(user: Path | None) -> tuple[Path, ...]:
    """The directories that are searched, in order."""
    return (bundled_directory(),) if user is None else (user, bundled_directory())


def target_names(user: Path | None = None) -> tuple[str, ...]:
    """The names of all targets, sorted; files that are only extended are none."""
    return tuple(sorted(_files(user)))


def _files(user: Path | None) -> dict[str, Path]:
    """The file of each target: the user's own where there is one."""
    places = [place for place in search_path(user) if place.is_dir()]
    found = {file.stem: file for place in reversed(places) for file in sorted(place.glob("*.toml"))}
    return {name: file for name, file in found.items() if not name.startswith("_")}


def host_target() -> str:
    """The name that a target for this machine's CPU has, whether there is one or not: the baseline, and no native one, so that
    all machines of a kind make the same library of it."""
    import platform

    machine = platform.machine().lower()
    return f"{_ARCHITECTURES.get(machine, machine)}-{_SYSTEMS.get(sys.platform, sys.platform)}-cpu"


class TargetNames:
    """The names by which targets may be called, those of a `user`'s own directory included.

    The files are read when a name is asked for that is no target's own.
    """

    def __init__(self, user: Path | None = None) -> None:
        self.user = user
        self._files = _files(user)
        self.own = tuple(sorted(self._files))

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """The target of each alias; the name of a target is no alias.  Raises UsageError for a file that is no TOML, and where
        two targets have one alias."""
        found: dict[str, str] = {}
        # A file that replaces one of llmbuild's has its aliases too, as it has its name.
        for name, alias in self._said("aliases"):
            if found.setdefault(alias, name) != name:
                raise UsageError(
                    f"two targets have the alias '{alias}'",
                    where=str(self._files[name]),
                    why=f"{found[alias]} has it too",
                    fix="remove it from one of them",
                )
        if host_target() in self.own:
            found[HOST] = host_target()
        return {alias: name for alias, name in found.items() if alias not in self.own}

    @property
    def files_read(self) -> Sequence[Path]:
        """The files that answers were taken from so far; none where only names of targets were asked for."""
        return tuple(self._files.values()) if "_tables" in self.__dict__ else ()

    @cached_property
    def words(self) -> Mapping[str, Sequence[str]]:
        """The targets that each word of another tool may denote."""
        found: dict[str, list[str]] = {}
        for key in ("words", "aliases"):
            for name, word in self._said(key):
                found.setdefault(word, []).append(name)
        return {word: list(dict.fromkeys(names)) for word, names in found.items()}

    def target_of(self, name: str) -> str | None:
        """The target that a name stands for, itself or by alias; None where there is none.  Raises what `aliases` does."""
        return name if name in self.own else self.aliases.get(name)

    def aliases_of(self, target: str) -> tuple[str, ...]:
        """The aliases of a target.  Raises what `aliases` does."""
        return tuple(alias for alias, name in self.aliases.items() if name == target)

    def nearest(self, word: str, known: Iterable[str], *, aliases: bool = True) -> str | None:
        """A sentence that proposes some of the `known` names, or with `aliases` their aliases, for a word that is none; None when
        none is near."""
        names = list(known)
        spoken = word.strip().lower()
        if spoken == HOST and HOST not in self.aliases:
            return f"there is no target for this machine's CPU ({host_target()})"
        found = [name for name in self.words.get(spoken.removesuffix(":generic"), ()) if name in names]
        if found:
            found = [self._called(name, word) if aliases else name for name in found]
            return f"'{word}' is spelled {either(repr(name) for name in found)} here"
        others = [alias for alias, name in self.aliases.items() if name in names] if aliases else []
        return did_you_mean(word, [*names, *others])

    def _called(self, target: str, instead: str) -> str:
        """What a manifest calls a target: an alias of it, best the one that differs from the word in case or blanks only, and
        else its name."""
        aliases = [alias for alias in self.aliases_of(target) if alias not in (HOST, instead)]
        spoken = instead.strip().lower()
        return spoken if spoken in aliases else next(iter(aliases), target)

    @cached_property
    def _tables(self) -> Mapping[str, Any]:
        """What [target] is in each target's own file.  Raises UsageError for a file that is no TOML."""
        # Which target is this machine's is asked for without any file.
        from llmbuild.tomlfile import read_toml

        return {name: read_toml(self._files[name]).data.get("target") for name in self.own}

    def _said(self, key: str) -> Iterator[tuple[str, str]]:
        """Each target's name with each string of a list in [target] of its own file; values of wrong types are skipped, as
        loading the target reports them."""
        for name, table in self._tables.items():
            values = table.get(key) if isinstance(table, dict) else None
            for value in values if isinstance(values, list) else ():
                if isinstance(value, str):
                    yield name, value
