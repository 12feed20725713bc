"""A user's own settings, `~/.config/llmbuild/config.toml`: what holds for all projects on a machine and changes no result.

    cache-dir = "/data/llmbuild"    # where the store is
    max-size = "50GB"               # what `llmbuild cache gc` shrinks it to
    jobs = 4                        # tasks at a time

Command-line options go before environment variables, and those before this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.engine.limits import parse_size
from llmbuild.errors import LlmbuildError, MultiError, UsageError, did_you_mean
from llmbuild.home import at_home, user_directory

MOST_JOBS = 1024
"""Each task at a time is a process and a thread that waits for it."""

KEYS = ("cache-dir", "max-size", "jobs")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says; None for what it does not.  `max_size` is in bytes."""

    cache_dir: Path | None = None
    max_size: int | None = None
    jobs: int | None = None


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
        if key not in KEYS:
            wrong(key, "there is no such setting", did_you_mean(key, KEYS) or f"the settings are {', '.join(KEYS)}")
    cache_dir: Path | None = None
    max_size: int | None = None
    jobs: int | None = None
    if "cache-dir" in file.data:
        value = file.data["cache-dir"]
        cache_dir = at_home(value, "HOME") if isinstance(value, str) else None
        if cache_dir is None or not cache_dir.is_absolute():
            wrong("cache-dir", "the cache directory must be an absolute path", 'write cache-dir = "/data/llmbuild"')
    if "max-size" in file.data:
        value = file.data["max-size"]
        try:
            max_size = parse_size(value) if isinstance(value, str) else None
        except UsageError:
            max_size = None
        if max_size is None:
            wrong("max-size", "this is not a size", 'write max-size = "50GB"')
    if "jobs" in file.data:
        value = file.data["jobs"]
        jobs = value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_JOBS else None
        if jobs is None:
            wrong("jobs", "this is not a number of tasks", "write jobs = 4")
    if errors:
        raise errors[0] if len(errors) == 1 else MultiError(errors)
    return Settings(cache_dir, max_size, jobs)


def default_jobs() -> int:
    """How many tasks run at a time when nobody says: the user's setting, or the number of CPUs.  Raises what
    read_settings does."""
    if (jobs := read_settings().jobs) is not None:
        return jobs
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
