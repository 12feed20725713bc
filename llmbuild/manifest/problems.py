"""Errors of a manifest, collected: all of them are reported at once, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmbuild.errors import LlmbuildError, MultiError, UsageError, did_you_mean, raise_all
from llmbuild.tomlfile import KeyPath, TomlFile


class Problems:
    """Collects errors with their places.  `broken` are the keys whose value could not be used at all."""

    def __init__(self, file: TomlFile) -> None:
        self.file = file
        self.broken: set[KeyPath] = set()
        self._found: list[tuple[int, LlmbuildError]] = []
        self._seen: set[tuple[str | None, str]] = set()

    def add(self, path: Sequence[str | int], what: str, *, why: str | None = None, fix: str | None = None) -> None:
        """An error at a key; the same error at the same place is kept once."""
        self._keep(self.file.line(path) or 0, UsageError(what, where=self.file.where(path), why=why, fix=fix))

    def add_error(self, path: Sequence[str | int], error: LlmbuildError) -> None:
        """An error found elsewhere (a target or template file), which names its own place; sorted by the key that led there."""
        for single in error.errors if isinstance(error, MultiError) else (error,):
            self._keep(self.file.line(path) or 0, single)

    def _keep(self, line: int, error: LlmbuildError) -> None:
        if (error.where, error.what) not in self._seen:
            self._seen.add((error.where, error.what))
            self._found.append((line, error))

    def __len__(self) -> int:
        """How many errors there are so far."""
        return len(self._found)

    def is_broken(self, path: Sequence[str | int]) -> bool:
        """Whether this key or one around it could not be used, so that it is not checked further."""
        return any(tuple(path[:end]) in self.broken for end in range(1, len(path) + 1))

    def is_misspelt(self, path: KeyPath) -> bool:
        """Whether an unknown key beside this one was probably meant to be it, so that its absence needs no error too."""
        *table, key = path
        beside = (other[-1] for other in self.broken if list(other[:-1]) == table)
        return any(did_you_mean(str(name).replace("_", "-"), [str(key)]) for name in beside)

    def any_broken(self, paths: Iterable[Sequence[str | int]]) -> bool:
        return any(self.is_broken(path) for path in paths)

    def raise_if_any(self) -> None:
        """Raise the single error, or a MultiError; errors of the manifest itself come first and set the exit code."""
        raise_all([error for _, error in sorted(self._found, key=lambda found: (found[1].exit_code, found[0]))])
