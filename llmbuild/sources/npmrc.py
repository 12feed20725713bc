"""npm's own settings, as far as fetching needs them: which registry has a package, and what it is asked with.

npm reads them from the environment (`npm_config_…` in either case) and from the files that its documentation of `.npmrc` names:
that of the user, and the global one where NPM_CONFIG_GLOBALCONFIG names it.  A project's own `.npmrc` is not read: a repository
that somebody else wrote must not choose where a token is sent.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.errors import FetchError, UsageError
from llmbuild.sources.request import TOKEN, WRONG_TOKEN
from llmbuild.urls import in_clear_text, service_address, shown

PUBLIC = "https://registry.npmjs.org"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MOST_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry's address, without a slash at the end, and the header with the user's token for it, if there is one."""

    url: str
    credentials: Mapping[str, str]


def registry_of(package: str) -> Registry:
    """The registry that the user configured for a package.  Raises FetchError or UsageError."""
    settings = _settings()
    scope = package.partition("/")[0] if package.startswith("@") else ""
    chosen = settings.get(f"{scope}:registry") if scope else None
    url = (chosen or settings.get("registry") or PUBLIC).rstrip("/")
    try:
        parts = service_address(url, ".npmrc (//host/:_authToken=…)")
    except ValueError as error:
        raise UsageError(
            f"npm's setting 'registry' is not the address of a registry: '{shown(url)}'",
            why=str(error) or None,
            fix="set it to https://host (NPM_CONFIG_REGISTRY, or registry=… in .npmrc), or remove it for the public one",
        ) from error
    if in_clear_text(url):
        raise FetchError(
            "only https is asked for packages",
            where=shown(url),
            why="npm's setting 'registry' is plain http, and what that brings anybody can change",
            fix="use the https address of the registry",
        )
    return Registry(url, _credentials(parts, settings))


def _credentials(parts: urllib.parse.SplitResult, settings: Mapping[str, str]) -> Mapping[str, str]:
    """The header for a registry: npm takes the setting of the longest beginning of its address."""
    path = f"//{parts.netloc}{parts.path}/"
    while path.count("/") > 2:
        for name, scheme in (("_authToken", "Bearer"), ("_auth", "Basic")):
            token = settings.get(f"{path}:{name}")
            if token is None:
                continue
            if not TOKEN.fullmatch(token):
                raise UsageError(
                    f"the token for the registry '{shown(parts.geturl())}' cannot be a token",
                    why=WRONG_TOKEN,
                    fix=f"set {path}:{name} in .npmrc to the token alone",
                )
            return {"Authorization": f"{scheme} {token}"}
        path = path.rstrip("/").rpartition("/")[0] + "/"
    return {}


def _settings() -> dict[str, str]:
    """All settings by name; what the environment says comes before the files."""
    given = {name.lower(): value for name, value in os.environ.items() if name.lower().startswith("npm_config_")}
    user = given.get("npm_config_userconfig") or str(Path.home() / ".npmrc")
    files = [path for path in (given.get("npm_config_globalconfig"), user) if path]
    settings: dict[str, str] = {}
    for path in files:
        settings |= _read(Path(path))
    for name, value in os.environ.items():
        if name.lower() == "npm_config_registry" and value:
            settings["registry"] = value
        elif name.startswith(("npm_config_//", "npm_config_@")):
            settings[name.removeprefix("npm_config_")] = value
    return settings


def _read(path: Path) -> dict[str, str]:
    """The settings in a file of npm: lines of `name = value`.  None where it is not there."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_FILE).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            "npm's settings cannot be read",
            where=str(path),
            why=error.strerror,
            fix="mend the file, or name another one in NPM_CONFIG_USERCONFIG",
        ) from error
    settings = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith((";", "#", "[")):
            settings[name.strip()] = _expanded(value.strip().strip("\"'"))
    return settings


def _expanded(value: str) -> str:
    """A value with the variables of the environment in it; npm leaves unknown ones as they are."""
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), value)
