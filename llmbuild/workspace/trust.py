"""Which words of a project run on this machine, and whether the user trusts them.

A target of a project may name the linker (`[link] compiler`) and what is added to its command (`[link] flags`).
Neither is used before the user trusts it: `llmbuild trust` records the project's directory and the SHA-256 of exactly these
values, in the user's own files.  Targets that come with llmbuild have neither, so that most projects need no trust.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, Json, digest_json, parse_digest
from llmbuild.errors import UsageError
from llmbuild.programs.run import compiler_of

if TYPE_CHECKING:
    from llmbuild.engine.store import ActionRecord

VARIABLE = "LLMBUILD_TRUST"
"""The variable that trusts every project, for CI."""

_FORMAT = 1
_READ = f"read it, and run `llmbuild trust` (in CI: --trust, or {VARIABLE}=1)"


class UntrustedError(UsageError):
    """A project names a program or flags that the user does not trust yet."""


class Trust:
    """What is trusted of the project in one directory; with `everything` all of it.  The record is read when it is needed."""

    def __init__(self, root: Path, everything: bool = False) -> None:
        self._root = os.path.realpath(root)
        self._everything = everything
        self._known: frozenset[Digest] | None = None

    def holds(self, words: Mapping[str, Json]) -> bool:
        """Whether these words (`words_of`) are trusted.  Raises UsageError where the record or the variable is wrong."""
        if not words or self._everything or _variable():
            return True
        if self._known is None:
            self._known = frozenset(_read(trust_file()).get(self._root, ())) if _has_home() else frozenset()
        return digest_json(words) in self._known

    def require_compiler(self, link: Mapping[str, Json]) -> None:
        """Raise UntrustedError where a link part names a program of its own that is not trusted."""
        if "compiler" in (words := words_of(link)) and not self.holds(words):
            raise _refusal(words)

    def require_architecture(self, name: str, sha256: Digest) -> None:
        """Raise UntrustedError for a file of an architecture whose content is not trusted."""
        if not self.holds(words := architecture_words(name, sha256)):
            raise _refusal(words)

    def flags_error(self, link: Mapping[str, Json]) -> UntrustedError | None:
        """The error where a link part has untrusted flags of its own, and no program; None where it does not: nothing is linked
        with them."""
        words = words_of(link)
        return None if "compiler" in words or self.holds(words) else _refusal(words)


def words_of(link: Mapping[str, Json]) -> dict[str, Json]:
    """The words of a link part that decide which code runs: `compiler` and `flags`, as lists, where it has them."""
    found: dict[str, Json] = {}
    compiler, flags = compiler_of(link), link.get("flags")
    if compiler is not None:
        found["compiler"] = list(compiler)
    if flags:
        found["flags"] = flags
    return found


def architecture_words(name: str, sha256: Digest) -> dict[str, Json]:
    """The words that stand for a file of an architecture and its content."""
    return {"architecture": [f"architectures/{name}.py", sha256]}


def own_words(root: Path) -> list[tuple[dict[str, Json], str]]:
    """The words that a project has for its targets and its architectures, with what each is for.  Raises UsageError for a wrong
    target file, InputError for an architecture that cannot be read."""
    from llmbuild.canonical import digest_bytes
    from llmbuild.manifest.architectures import own_files, read_architecture
    from llmbuild.manifest.load import USER_TARGETS
    from llmbuild.targets.files import load_target
    from llmbuild.targets.names import target_names

    found: dict[Digest, tuple[dict[str, Json], list[str]]] = {}
    for name in target_names(root / USER_TARGETS):
        if words := words_of(load_target(name, root / USER_TARGETS).link_part()):
            found.setdefault(digest_json(words), (words, []))[1].append(name)
    linked = [(words, f"links for {', '.join(names)}") for words, names in found.values()]
    files = {name: digest_bytes(read_architecture(root, name)) for name in own_files(root)}
    return linked + [(architecture_words(name, sha256), f"describes {name} models") for name, sha256 in files.items()]


def spoken_words(words: Mapping[str, Json]) -> str:
    """The words as a person reads them: `gcc-13 -m64, with the flags -Wl,-s`."""
    import shlex

    if isinstance(of := words.get("architecture"), list):
        return f"{of[0]} (SHA-256 {str(of[1])[:12]}…)"
    said = [shlex.join(map(str, value)) for value in words.values() if isinstance(value, list)]
    return (
        ", with the flags ".join(said) if len(said) > 1 else said[0] if "compiler" in words else f"the flags {said[0]}"
    )


def require_asked(record: ActionRecord, everything: bool) -> None:
    """Raise UsageError for an action that no project on this machine requested, and UntrustedError for one with untrusted
    words of a project; with `everything` neither."""
    if everything or _variable():
        return
    project = Path(record.project)
    if not record.project or not project.exists():
        raise UsageError(
            f"no project on this machine asked for this action: {record.label}",
            why=f"{project} is gone"
            if record.project
            else "its record came from elsewhere, and what it has run as well",
            fix=f"run it by its task, `llmbuild build --force '{record.label}'`, or give --trust",
        )
    trust = Trust(project if project.is_dir() else project.parent)
    # A link task has the words in its link part, a runtime task beside a link part that is not used.
    for part in (record.action.params, record.action.params.get("link")):
        if isinstance(part, Mapping) and not trust.holds(words := words_of(part)):
            raise _refusal(words)
    own = record.action.params.get("architecture")
    if isinstance(own, Mapping):
        trust.require_architecture(str(own.get("name")), parse_digest(str(own.get("sha256"))))


def remember(root: Path, words: Collection[Mapping[str, Json]]) -> None:
    """Trust exactly these words of the project in a directory instead of those before; without words, forget the project.

    Raises UsageError where the record is wrong or there is no home, StoreError where it cannot be written.
    """
    from llmbuild.engine import files, fs

    path = trust_file()
    known = _read(path)
    known.pop(os.path.realpath(root), None)
    if words:
        known[os.path.realpath(root)] = tuple(sorted(map(digest_json, words)))
    value: Json = {"format": _FORMAT, "projects": {root: list(digests) for root, digests in sorted(known.items())}}
    with fs.translate_errors("remember what is trusted", path, fs.OUTPUT):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, (json.dumps(value, indent=2) + "\n").encode(), mode=0o600)


def trust_file() -> Path:
    """The file that records trust: `$XDG_CONFIG_HOME/llmbuild/trusted.json`, else below `~/.config`.  Raises UsageError
    without a home."""
    from llmbuild.engine.settings import settings_path

    return settings_path().with_name("trusted.json")


def _has_home() -> bool:
    try:
        trust_file()
    except UsageError:
        # A user without a home has trusted nothing.
        return False
    return True


def _read(path: Path) -> dict[str, tuple[Digest, ...]]:
    from llmbuild.jsontext import parse_json

    try:
        if path.exists() and not path.is_file():
            # A pipe has no end, and a device neither.
            raise ValueError("it is no file")
        value = parse_json(path.read_bytes())
        if value["format"] != _FORMAT:
            raise ValueError("it has another format")
        return {str(root): tuple(map(parse_digest, digests)) for root, digests in value["projects"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "the record of what is trusted cannot be read",
            where=str(path),
            why=str(error) or type(error).__name__,
            fix="remove it, and run `llmbuild trust` in the projects that you trust",
        ) from error


def _variable() -> bool:
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{VARIABLE} is '{value}'", fix=f"set {VARIABLE}=1 to trust every project, or unset it")
    return value == "1"


def _refusal(words: Mapping[str, Json]) -> UntrustedError:
    own = words.get("architecture")
    if isinstance(own, list):
        return UntrustedError(
            f"not trusted (SHA-256 {str(own[1])[:12]}…)",
            where=str(own[0]),
            why="the project's own architecture is code that runs on your machine",
            fix=_READ,
        )
    return UntrustedError(
        f"not trusted: {spoken_words(words)}",
        why="the project's own target has this run on your machine",
        fix=_READ,
    )
