"""Targets as data: one TOML file a target, device kind x host triple x artifact kind.

A target file has the tables [target] (name, description, extends), [device] (TVM's target attributes of the device), [host]
(triple, cpu, features), [artifact] (kinds, default), [link] (linker, compiler, flags), [defaults] (opt, metadata) and
[requires] (tools: commands that must be on PATH).  The file's name is the target's name (`name`, when given, must agree).  A
user's own targets/ directory is searched before the targets that come with llmbuild, and `extends` inherits table by table,
key by key.

docs/manifest.md describes the keys for users.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json
from llmbuild.errors import LlmbuildError, MultiError, ToolchainError, UsageError, did_you_mean
from llmbuild.tomlfile import TomlFile, read_toml

ARTIFACTS = ("so", "tar")
LINKERS = ("cc",)
NATIVE = "native"

# What a target file may hold: table -> key -> type.  [device] takes any attribute that TVM's target kind has.
_TABLES: Mapping[str, Mapping[str, type]] = {
    "target": {"name": str, "description": str, "extends": str},
    "device": {},
    "host": {"triple": str, "cpu": str, "features": list},
    "artifact": {"kinds": list, "default": str},
    "link": {"linker": str, "compiler": str, "flags": list},
    "defaults": {"opt": str, "metadata": dict},
    "requires": {"tools": list},
}

_SPOKEN: Mapping[type, str] = {str: "a string", list: "a list of strings", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Target:
    """A target file with what it extends merged in.  `files` are the files it was made of, the nearest first."""

    name: str
    description: str
    device: Mapping[str, Json]
    triple: str
    cpu: str
    features: tuple[str, ...]
    artifacts: tuple[str, ...]
    artifact: str
    linker: str
    compiler: str | None
    link_flags: tuple[str, ...]
    opt: str | None
    metadata: Mapping[str, int]
    tools: tuple[str, ...]
    files: tuple[Path, ...]

    def compile_part(self) -> Mapping[str, Json]:
        """`{"device": …, "host": …}`: dictionaries for TVM's Target.  `cpu = "native"` is resolved to this machine's CPU.

        For a CPU the device is the host, so that both carry triple, CPU and features.  Raises ToolchainError when the
        target is native and this machine's CPU is not known or of another architecture.
        """
        cpu, features = self.cpu, self.features
        if cpu == NATIVE:
            cpu, found = native_cpu(self.triple)
            features = (*found, *features)
        host: dict[str, Json] = {"kind": "llvm", "mtriple": self.triple}
        if cpu:
            host["mcpu"] = cpu
        if features:
            host["mattr"] = list(features)
        device = {**host, **self.device} if self.device["kind"] == "llvm" else dict(self.device)
        return {"device": device, "host": host}

    def link_part(self) -> Mapping[str, Json]:
        """What link reads: the linker, the compiler that drives it where the target names one, flags, and the triple."""
        named: Mapping[str, Json] = {} if self.compiler is None else {"compiler": self.compiler}
        return {"linker": self.linker, **named, "flags": list(self.link_flags), "triple": self.triple}

    def missing_tools(self) -> tuple[str, ...]:
        """The commands of [requires] tools that are not on this machine's PATH."""
        return tuple(tool for tool in self.tools if shutil.which(tool) is None)


def bundled_directory() -> Path:
    """Where llmbuild's own target files are: inside an installed wheel, or at the top of a source tree."""
    package = Path(__file__).resolve().parent
    installed = package / "_targets"
    return installed if installed.is_dir() else package.parent / "targets"


def search_path(user: Path | None) -> tuple[Path, ...]:
    """The directories that are searched, in order."""
    return (bundled_directory(),) if user is None else (user, bundled_directory())


def target_names(user: Path | None = None) -> tuple[str, ...]:
    """The names of all targets, sorted."""
    found = {file.stem for place in search_path(user) if place.is_dir() for file in place.glob("*.toml")}
    return tuple(sorted(found))


def load_target(name: str, user: Path | None = None) -> Target:
    """Read a target and what it extends.  Raises UsageError (several at once as MultiError)."""
    chain = _chain(name, search_path(user), user)
    errors = [error for file in chain for error in _check(file)]
    if errors:
        raise errors[0] if len(errors) == 1 else MultiError(errors)
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
            known = target_names(user)
            fix = did_you_mean(wanted, known) or f"known targets: {', '.join(known)}"
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
        elif name == "device":
            if not isinstance(table.get("kind", ""), str):
                add((name, "kind"), "must be a string")
        else:
            for key, value in table.items():
                kind = _TABLES[name].get(key)
                if kind is None:
                    add((name, key), f"unknown key '{key}'", did_you_mean(key, _TABLES[name]))
                elif not isinstance(value, kind):
                    add((name, key), f"must be {_SPOKEN[kind]}")
                elif isinstance(value, list) and not all(isinstance(word, str) for word in value):
                    add((name, key), "must be a list of strings")
                elif isinstance(value, dict) and not all(isinstance(number, int) for number in value.values()):
                    add((name, key), "must hold whole numbers")
    stem = Path(file.file).stem
    target = file.data.get("target")
    if isinstance(target, dict) and target.get("name", stem) != stem:
        add(("target", "name"), f"the name must be the file's, '{stem}'", f'rename the file, or write name = "{stem}"')
    return errors


def _build(name: str, chain: Sequence[TomlFile]) -> Target:
    merged: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
    origin: dict[tuple[str, str], TomlFile] = {}
    for file in reversed(chain):
        for table, values in file.data.items():
            for key, value in values.items():
                merged[table][key] = {**merged[table].get(key, {}), **value} if isinstance(value, dict) else value
                origin[table, key] = file
    errors: list[LlmbuildError] = []

    def need(table: str, key: str) -> str:
        if not merged[table].get(key):
            errors.append(UsageError(f"[{table}] {key} is missing", where=chain[0].where((table,))))
        return str(merged[table].get(key, ""))

    def listed(table: str, key: str, known: Sequence[str], values: Sequence[str]) -> None:
        errors.extend(
            UsageError(
                f"'{value}' is not one of {', '.join(known)}",
                where=origin[table, key].where((table, key)),
                fix=did_you_mean(value, known),
            )
            for value in values
            if value not in known
        )

    need("device", "kind")
    triple = need("host", "triple")
    linker = need("link", "linker")
    kinds = tuple(merged["artifact"].get("kinds", ()))
    if not kinds:
        errors.append(UsageError("[artifact] kinds is missing", where=chain[0].where(("artifact",))))
    else:
        listed("artifact", "kinds", ARTIFACTS, kinds)
        if "default" in merged["artifact"]:
            nearest = chain.index(origin["artifact", "default"]) <= chain.index(origin["artifact", "kinds"])
            if nearest:
                listed("artifact", "default", kinds, (merged["artifact"]["default"],))
            elif merged["artifact"]["default"] not in kinds:
                # The file narrows the kinds of what it extends; the default there was another one's.
                del merged["artifact"]["default"]
    if linker:
        listed("link", "linker", LINKERS, (linker,))
    if errors:
        raise errors[0] if len(errors) == 1 else MultiError(errors)
    return Target(
        name=name,
        description=merged["target"].get("description", ""),
        device=merged["device"],
        triple=triple,
        cpu=merged["host"].get("cpu", ""),
        features=tuple(merged["host"].get("features", ())),
        artifacts=kinds,
        artifact=merged["artifact"].get("default", kinds[0]),
        linker=linker,
        compiler=merged["link"].get("compiler"),
        link_flags=tuple(merged["link"].get("flags", ())),
        opt=merged["defaults"].get("opt"),
        metadata=merged["defaults"].get("metadata", {}),
        tools=tuple(merged["requires"].get("tools", ())),
        files=tuple(Path(file.file) for file in chain),
    )


# The x86-64 psABI levels by the flags of /proc/cpuinfo, the highest first ("abm" is LZCNT, "pni" is SSE3).
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
_V4 = _V3 | frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_LEVELS = (("x86-64-v4", _V4), ("x86-64-v3", _V3), ("x86-64-v2", _V2))

# Features beyond a level that change the code of tensor programs: the kernel's name, LLVM's name.  Those of AVX-512 are
# used only with the whole of v4.  AMX is left out: it needs a permission from the kernel at run time.
_AVX_EXTRAS = (
    ("avx_vnni", "avxvnni"),
    ("avx_vnni_int8", "avxvnniint8"),
    ("avx_ne_convert", "avxneconvert"),
    ("avx_ifma", "avxifma"),
)
_AVX512_EXTRAS = (
    ("avx512ifma", "avx512ifma"),
    ("avx512vbmi", "avx512vbmi"),
    ("avx512_vbmi2", "avx512vbmi2"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512_bitalg", "avx512bitalg"),
    ("avx512_vpopcntdq", "avx512vpopcntdq"),
    ("avx512_bf16", "avx512bf16"),
    ("avx512_fp16", "avx512fp16"),
)


def native_cpu(triple: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """LLVM's CPU level and further features (`+avx512bf16`) of this machine, from the flags that every core has.

    Raises ToolchainError when the triple is not of this machine's architecture or the flags cannot be read.
    """
    fix = "use a target with a named cpu, or write one in targets/"
    machine = platform.machine()
    if triple.split("-", 1)[0] not in ("x86_64", "amd64") or machine.lower() not in ("x86_64", "amd64"):
        raise ToolchainError(
            "a native target can be built on a machine of its own kind only",
            why=f"the target is {triple}, this machine is {machine}; CPU detection knows x86-64",
            fix=fix,
        )
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ToolchainError(f"cannot tell this machine's CPU: {cpuinfo}: {error.strerror}", fix=fix) from None
    cores = [frozenset(line.partition(":")[2].split()) for line in lines if line.partition(":")[0].strip() == "flags"]
    if not cores:
        raise ToolchainError(f"cannot tell this machine's CPU: {cpuinfo} lists no flags", fix=fix)
    flags = frozenset.intersection(*cores)
    level = next((name for name, needed in _LEVELS if needed <= flags), "x86-64")
    extras: list[tuple[str, str]] = []
    if level in ("x86-64-v3", "x86-64-v4"):
        extras += _AVX_EXTRAS
    if level == "x86-64-v4":
        extras += _AVX512_EXTRAS
    return level, tuple(f"+{llvm}" for kernel, llvm in extras if kernel in flags)
