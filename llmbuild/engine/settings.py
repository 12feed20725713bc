"""A user's own settings, `~/.config/llmbuild/config.toml`: what applies to all projects on a machine and changes no result.

    cache-dir = "/data/llmbuild"    # where the store is
    max-size = "50GB"               # what `llmbuild cache gc` shrinks it to
    jobs = 4                        # tasks at a time
    executor = "local"              # where actions run

Command-line options go before environment variables, and those before this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.engine.limits import parse_size
from llmbuild.errors import LlmbuildError, UsageError, did_you_mean, raise_all
from llmbuild.home import at_home, user_directory
from llmbuild.variables import MOST_JOBS, jobs


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the file; None for one that it does not set.  `max_size` is in bytes."""

    cache_dir: Path | None = None
    max_size: int | None = None
    jobs: int | None = None
    executor: str | None = None


def _directory(value: object) -> Path | None:
    path = at_home(value, "HOME") if isinstance(value, str) else None
    return path if path is not None and path.is_absolute() else None


def _size(value: object) -> int | None:
    try:
        return parse_size(value) if isinstance(value, str) else None
    except UsageError:
        return None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_JOBS else None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


_SETTINGS: Mapping[str, tuple[Callable[[object], object], str, str]] = {
    "cache-dir": (_directory, "the cache directory must be an absolute path", 'cache-dir = "/data/llmbuild"'),
    "max-size": (_size, "this is not a size", 'max-size = "50GB"'),
    "jobs": (_count, "this is not a number of tasks", "jobs = 4"),
    "executor": (_name, "this is not the name of an executor", 'executor = "local"'),
}
"""By key: the parser of a value (None for a wrong one), the message for a wrong one, and a right one."""


def settings_path(environ: Mapping[str, str] | None = None) -> Path:
    """$XDG_CONFIG_HOME/llmbuild/config.toml, else ~/.config/llmbuild/config.toml."""
    environ = os.environ if environ is None else environ
    return user_directory("XDG_CONFIG_HOME", "~/.config", environ) / "llmbuild" / "config.toml"


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The user's settings; all empty when there is no file.

    Raises UsageError, or a MultiError, with the line of everything that is wrong.
    """
    try:
        path = settings_path(environ)
    except UsageError:
        # Who has no home has no settings there.
        return Settings()
    if not path.exists():
        return Settings()
    # TOML costs milliseconds at start-up, which only users of the file pay.
    from llmbuild.tomlfile import read_toml

    file = read_toml(path)
    errors: list[LlmbuildError] = []

    def wrong(key: str, what: str, fix: str | None) -> None:
        errors.append(UsageError(what, where=file.where((key,)), fix=fix))

    for key in file.data:
        if key not in _SETTINGS:
            known = did_you_mean(key, _SETTINGS) or f"the settings are {', '.join(_SETTINGS)}"
            wrong(key, "there is no such setting", known)
    found: dict[str, Any] = {}
    for key, (read, what, example) in _SETTINGS.items():
        if key in file.data:
            value = found[key.replace("-", "_")] = read(file.data[key])
            if value is None:
                wrong(key, what, f"write {example}")
    raise_all(errors)
    return Settings(**found)


def default_jobs() -> int:
    """The default number of tasks at a time: that of LLMBUILD_JOBS, the user's setting, or the number of CPUs.

    Raises UsageError for a wrong variable, and what read_settings does."""
    if (chosen := jobs() or read_settings().jobs) is not None:
        return chosen
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
