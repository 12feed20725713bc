"""Read target files: the tables of a file, the file that it extends, and the merge of a chain of files.

A target file has the tables [target] (name, description, extends; aliases and words, see names.py), [device] (TVM's target
attributes of the device, and archs), [supports] (dtypes, several-devices), [host] (triple, cpu, features), [artifact] (kinds,
default, system-lib-prefix), [link] (linker, compiler, flags, minimum-os, needed, environment), [defaults] (opt, metadata) and
[requires] (tools, features).  The file's name is the target's name (`name`, when given, must agree).

A user's own targets/ directory is searched before the targets
that come with llmbuild, and `extends` inherits table by table, key by key; the attributes of another device kind are not
inherited.  A file whose name begins with "_" serves to be extended and is no target itself.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbuild.errors import LlmbuildError, UsageError, as_one, did_you_mean, raise_all
from llmbuild.programs.environment import wrong_name
from llmbuild.targets.kinds import device_kind, kind_names
from llmbuild.targets.kinds.device_kind import unknown_arch
from llmbuild.targets.names import TargetNames, search_path
from llmbuild.targets.target import ARTIFACTS, LINKERS, RequiredCommand, Target
from llmbuild.tomlfile import TomlFile, read_toml

# The schema of a target file: table -> key -> types.  [device] takes any attribute that TVM's target kind has.
_TABLES: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "target": {"name": str, "description": str, "extends": str, "aliases": list, "words": list},
    "device": {"kind": str, "archs": list},
    "supports": {"dtypes": list, "several-devices": bool},
    "host": {"triple": str, "cpu": str, "features": list},
    "artifact": {"kinds": list, "default": str, "system-lib-prefix": str},
    "link": {
        "linker": str,
        "compiler": (str, list),
        "flags": list,
        "minimum-os": str,
        "needed": list,
        "environment": list,
    },
    "defaults": {"opt": str, "metadata": dict},
    "requires": {"tools": list, "features": dict},
}

DTYPES = ("float32", "float16", "bfloat16")
PLACEHOLDERS = ("model", "model_type", "quantization")
"""The placeholders that a system-library prefix may have in braces."""
_TRIPLE = re.compile(r"[\w.-]+", re.ASCII)

_SPOKEN: Mapping[type | tuple[type, ...], str] = {
    str: "a string",
    list: "a list of strings",
    dict: "a table",
    bool: "true or false",
    (str, list): "a program's name, or a list of words",
}


def load_target(name: str, user: Path | None = None) -> Target:
    """Read a target and the files that it extends.  Raises UsageError (several at once as MultiError)."""
    chain = _chain(name, search_path(user), user)
    errors = [error for file in chain for error in _check(file)]
    raise_all(errors)
    return _build(name, chain)


def _chain(name: str, places: Sequence[Path], user: Path | None) -> list[TomlFile]:
    """The file of a target and those that it extends, the nearest first."""
    chain: list[TomlFile] = []
    seen: set[Path] = set()
    wanted = name
    remaining = tuple(places)
    while True:
        path = next((file for place in remaining if (file := place / f"{wanted}.toml").is_file()), None)
        if path is None or path in seen:
            where = chain[-1].where(("target", "extends")) if chain else None
            if path is not None:
                raise UsageError(f"target '{name}' extends itself through '{wanted}'", where=where)
            names = TargetNames(user)
            fix = names.nearest(wanted, names.own, aliases=False) or "`llmbuild targets` lists them"
            raise UsageError(f"unknown target '{wanted}'", where=where, fix=fix)
        seen.add(path)
        chain.append(read_toml(path))
        table = chain[-1].data.get("target")
        base = table.get("extends") if isinstance(table, dict) else None
        if not isinstance(base, str):
            return chain
        # A user's own file may alter the target of the same name that comes with llmbuild.
        index = places.index(path.parent) + 1
        remaining = tuple(places[index:]) if base == wanted else tuple(places)
        wanted = base


def _check(file: TomlFile) -> list[LlmbuildError]:
    """Unknown tables and keys, and values of a wrong type."""
    errors: list[LlmbuildError] = []

    def add(path: Sequence[str], what: str, fix: str | None = None) -> None:
        errors.append(UsageError(what, where=file.where(path), fix=fix))

    for name, table in file.data.items():
        if name not in _TABLES:
            add((name,), f"unknown table '{name}'", did_you_mean(name, _TABLES) or f"known: {', '.join(_TABLES)}")
        elif not isinstance(table, dict):
            add((name,), "must be a table")
        else:
            for key, value in table.items():
                kind = _TABLES[name].get(key)
                if kind is not None:
                    wrong = _wrong(name, key, kind, value)
                    if wrong is not None:
                        add((name, key), wrong)
                elif name != "device":
                    add((name, key), f"unknown key '{key}'", did_you_mean(key, _TABLES[name]))
    stem = Path(file.file).stem
    target = file.data.get("target")
    if isinstance(target, dict) and target.get("name", stem) != stem:
        add(("target", "name"), f"the name must be the file's, '{stem}'", f'rename the file, or write name = "{stem}"')
    return errors


def _wrong(table: str, key: str, kind: type | tuple[type, ...], value: object) -> str | None:
    """The error in the type of a value, or None."""
    if not isinstance(value, kind) or "\\u0000" in json.dumps(value, default=str):
        return f"must be {_SPOKEN[kind]}" + (", without U+0000" if isinstance(value, kind) else "")
    if (table, key) == ("requires", "tools"):
        assert isinstance(value, list)
        return (
            None if all(map(_is_tool, value)) else 'must be a list of commands, or of { command = "…", install = "…" }'
        )
    if (table, key) == ("requires", "features"):
        assert isinstance(value, dict)
        return None if all(map(_is_strings, value.values())) else "must hold lists of strings"
    if isinstance(value, list) and not _is_strings(value):
        return "must be a list of strings"
    if isinstance(value, dict) and not all(isinstance(number, int) for number in value.values()):
        return "must hold whole numbers"
    return None


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _is_tool(value: object) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str)
    return set(value) <= {"command", "install"} and isinstance(value.get("command"), str) and _is_text(value)


def _is_text(table: Mapping[str, object]) -> bool:
    return all(isinstance(value, str) for value in table.values())


class _Merged:
    """The tables of a chain of files, the nearest over what it extends, and which file each value comes from."""

    def __init__(self, chain: Sequence[TomlFile]) -> None:
        self.chain = chain
        self.tables: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
        self.errors: list[LlmbuildError] = []
        self._origin: dict[tuple[str, str], TomlFile] = {}
        for file in reversed(chain):
            # Limits and architectures of one kind of device do not apply to another.
            before = self.tables["device"].get("kind")
            if before not in (None, file.data.get("device", {}).get("kind", before)):
                self.tables["device"] = {}
                self.tables["supports"] = {}
                self.tables["requires"].pop("features", None)
            for table, values in file.data.items():
                for key, value in values.items():
                    merged = {**self.tables[table].get(key, {}), **value} if isinstance(value, dict) else value
                    self.tables[table][key] = merged
                    self._origin[table, key] = file

    def where(self, table: str, key: str) -> str:
        """The place of a value, or of the table that lacks it."""
        file = self._origin.get((table, key))
        return str(self.chain[0].where((table,)) if file is None else file.where((table, key)))

    def distance(self, table: str, key: str) -> int:
        """How many files down the chain a value comes from."""
        return self.chain.index(self._origin[table, key])

    def add(self, table: str, key: str, what: str, fix: str | None = None) -> None:
        self.errors.append(UsageError(what, where=self.where(table, key), fix=fix))

    def text(self, table: str, key: str) -> str:
        """A required string."""
        value = self.tables[table].get(key)
        if not value:
            self.add(table, key, f"[{table}] {key} is missing")
        return str(value or "")

    def words(self, table: str, key: str, known: Sequence[str] | None = None) -> tuple[str, ...]:
        """A list of strings, each one of `known`."""
        value = self.tables[table].get(key, ())
        words = (value,) if isinstance(value, str) else tuple(value)
        for word in words:
            if known is not None and word not in known:
                self.add(table, key, f"'{word}' is not one of {', '.join(known)}", did_you_mean(word, known))
        return words


def _build(name: str, chain: Sequence[TomlFile]) -> Target:
    merged = _Merged(chain)
    tables = merged.tables
    kind = merged.text("device", "kind")
    names = kind_names()
    known = device_kind(kind) if kind in names else None
    if kind and known is None:
        fix = did_you_mean(kind, names) or f"known: {', '.join(names)}"
        merged.add("device", "kind", f"unknown device kind '{kind}'", fix)
    triple = merged.text("host", "triple")
    if triple and _TRIPLE.fullmatch(triple) is None:
        # Names of programs contain it: a path in it would be the path of a program.
        fix = "letters, digits, '.' and '_' with '-' between them: x86_64-unknown-linux-gnu"
        merged.add("host", "triple", f"'{triple}' is no triple", fix)
    kinds, artifact = _artifacts(merged)
    merged.words("link", "linker", LINKERS)
    compiler = _compiler(merged)
    environment = _environment(merged)
    dtypes = merged.words("supports", "dtypes", DTYPES)
    prefix = tables["artifact"].get("system-lib-prefix", "")
    wrong = wrong_prefix(prefix)
    if wrong is not None:
        merged.add("artifact", "system-lib-prefix", *wrong)
    attributes = {key: value for key, value in tables["device"].items() if key != "archs"}
    archs = tuple(tables["device"].get("archs", ()))
    if known is not None:
        for key, what, hint in device_errors(attributes, archs):
            merged.add("device", key, what, hint)
    if known is None or merged.errors:
        raise as_one(merged.errors)
    features = tables["requires"].get("features", known.features)
    needed = tables["link"].get("needed")
    return Target(
        name=name,
        description=tables["target"].get("description", ""),
        device=attributes,
        archs=archs,
        dtypes=dtypes or known.dtypes,
        several_devices=tables["supports"].get("several-devices", known.several),
        features={dtype: tuple(words) for dtype, words in features.items()},
        triple=triple,
        cpu=tables["host"].get("cpu", ""),
        cpu_features=tuple(tables["host"].get("features", ())),
        artifacts=kinds,
        artifact=artifact,
        system_lib_prefix=prefix,
        linker=tables["link"].get("linker"),
        compiler=compiler,
        link_flags=tuple(tables["link"].get("flags", ())),
        minimum_os=tables["link"].get("minimum-os"),
        needed=None if needed is None else tuple(needed),
        environment=environment,
        opt=tables["defaults"].get("opt"),
        metadata=tables["defaults"].get("metadata", {}),
        tools=tuple(_tool(value) for value in tables["requires"].get("tools", ())),
        files=tuple(Path(file.file) for file in chain),
    )


def _tool(value: str | Mapping[str, str]) -> RequiredCommand:
    return (
        RequiredCommand(value)
        if isinstance(value, str)
        else RequiredCommand(value["command"], value.get("install", ""))
    )


def _compiler(merged: _Merged) -> tuple[str, ...] | None:
    """The words of `link.compiler`.  A string is one program's name: a command line in it would need a shell's parser."""
    value = merged.tables["link"].get("compiler")
    if value is None:
        return None
    words = (value,) if isinstance(value, str) else tuple(value)
    if isinstance(value, str) and value.split() != [value]:
        listed = ", ".join(f'"{word}"' for word in value.replace('"', "").replace("\\", "/").split())
        what = "is one program's name, and a list where there are more words" if listed else "is the name of no program"
        merged.add(
            "link", "compiler", what, f"write compiler = [{listed}]" if listed else "name one, or remove the key"
        )
    elif not all(words) or not words:
        merged.add("link", "compiler", "is the name of no program", "name one, or remove the key")
    elif not Path(words[0]).is_absolute() and Path(words[0]).name != words[0]:
        merged.add(
            "link",
            "compiler",
            f"'{words[0]}' is a relative path, and the compiler runs in a directory of its own",
            "name a program that is on PATH, or write its whole path",
        )
    return words


def _environment(merged: _Merged) -> tuple[str, ...]:
    """The names of `link.environment`, sorted: their values are in the keys."""
    names = merged.words("link", "environment")
    for name in names:
        if (wrong := wrong_name(name)) is not None:
            merged.add("link", "environment", wrong, "name variables that the linker needs and that no task sees")
    return tuple(sorted(set(names)))


def _artifacts(merged: _Merged) -> tuple[tuple[str, ...], str]:
    """The artifact kinds of a target and the default one."""
    table = merged.tables["artifact"]
    kinds = merged.words("artifact", "kinds", ARTIFACTS)
    if not kinds:
        merged.add("artifact", "kinds", "[artifact] kinds is missing")
        return (), ""
    if "default" in table:
        if merged.distance("artifact", "default") <= merged.distance("artifact", "kinds"):
            merged.words("artifact", "default", kinds)
        elif table["default"] not in kinds:
            # The file narrows the kinds of the file that it extends; the default there was another one's.
            return kinds, kinds[0]
    return kinds, str(table.get("default", kinds[0]))


def device_errors(attributes: Mapping[str, object], archs: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """The key, the error in it and the fix, for each wrong attribute or architecture of a known device kind."""
    kind = device_kind(str(attributes["kind"]))
    for key, value in attributes.items():
        fix = kind.unknown_attribute(key)
        if fix is not None:
            yield key, f"a {kind.name} device has no attribute '{key}'", fix
        elif (wanted := kind.wrong_type(key, value)) is not None:
            yield key, f"must be {wanted}", None
    for key in ("arch", "mcpu"):
        arch = attributes.get(key)
        if kind.archs and isinstance(arch, str) and (fix := unknown_arch(kind, arch)) is not None:
            yield key, f"unknown {kind.name} architecture '{arch}'", fix
    if not kind.archs and archs:
        yield "archs", f"a {kind.name} device has no architectures to choose from", "remove archs"
    elif kind.archs and not archs:
        yield "archs", "no architecture is named", f'write archs = ["{kind.archs[-1]}"], or others'
    elif len(set(archs)) < len(archs):
        yield "archs", "an architecture is listed twice", "remove one"
    elif kind.one_arch and len(archs) > 1:
        yield (
            "archs",
            f"a {kind.name} library holds code for one architecture, and here are {len(archs)}",
            "make one platform for each of them",
        )
    for arch in archs if kind.archs else ():
        fix = unknown_arch(kind, arch)
        if fix is not None:
            yield "archs", f"unknown {kind.name} architecture '{arch}'", fix


def wrong_prefix(prefix: str) -> tuple[str, str] | None:
    """The error in a system-library prefix and the fix, or None.  It may have placeholders: {model_type}."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(prefix) if name is not None]
    except ValueError:
        fields = [""]
    for name in fields:
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
            return f"'{{{name}}}' stands for nothing in a system-lib-prefix", did_you_mean(
                name, PLACEHOLDERS
            ) or f"known: {known}"
    plain = prefix.format(**dict.fromkeys(PLACEHOLDERS, "x"))
    if plain and not (plain.isascii() and plain.replace("_", "x").isalnum() and not plain[0].isdigit()):
        return f"'{prefix}' cannot begin a symbol", (
            "use letters, digits and _, not beginning with a digit (a common form is model_scheme_)"
        )
    return None
