"""Publications of a few small files, and processes that publish them and may be killed meanwhile.

A process of its own imports everything once and forks for each publication, which costs milliseconds instead of half a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.canonical import digest_file
from llmbuild.publishing.kind import Difference, Facts, File, Publication, Role, Wishes
from llmbuild.publishing.kinds import split

FACTS = Facts("tiny", "q4f16_1", "llama", 135_000_000, "float16", "apache-2.0")


def role_of(name: str) -> Role:
    if name.startswith("libs/"):
        return "library"
    if name.startswith("provenance/"):
        return "statement"
    return {"README.md": "card"}.get(name, "weights" if name.endswith(".bin") else "config")  # type: ignore[return-value]


def publication(directory: Path) -> Publication:
    """The files of a directory."""
    files = []
    for path in sorted(one for one in directory.rglob("*") if one.is_file()):
        name = path.relative_to(directory).as_posix()
        files.append(File(name, digest_file(path), path.stat().st_size, role_of(name), path))
    return Publication.of(files, FACTS)


def make_files(directory: Path) -> Path:
    """A model's files, none like another, of some hundred to some thousand bytes."""
    for number, name in enumerate(
        (
            "mlc-chat-config.json",
            "tensor-cache.json",
            "tokenizer.json",
            "params_shard_0.bin",
            "params_shard_1.bin",
            "params_shard_2.bin",
            "libs/tiny-q4f16_1-web.wasm",
            "provenance/tiny-q4f16_1-MLC.intoto.json",
            "README.md",
        )
    ):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 2500 if name == "params_shard_1.bin" else 200 + number
        text = "---\nlibrary_name: mlc-llm\n---\n" if name == "README.md" else f"{name} "
        path.write_bytes((text * size).encode()[:size])
    return directory


def publish(to: str, files: Path, state: Path, wishes: Wishes | None = None) -> tuple[Difference, str]:
    """Publish a directory in this process: the difference that there was, and the reference."""
    kind, place = split(to)
    kind.check(place)
    destination = kind.open(place, wishes or Wishes(), state)
    what = publication(files)
    difference = destination.compare(what)
    return difference, destination.send(what, difference, lambda _size: None)


class Counted:
    """Counts what is sent."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, size: int) -> None:
        self.sizes.append(size)

    @property
    def total(self) -> int:
        return sum(self.sizes)


@dataclass
class Forks:
    """The process that forks."""

    process: subprocess.Popen[str]

    def start(self, to: str, files: Path, state: Path, env: Mapping[str, str]) -> int:
        """Start a publication; returns the number of its process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        wish = {"to": to, "files": str(files), "state": str(state), "env": dict(env)}
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> dict[str, Any]:
        """What became of it: {"signal"} of a death, else {"reference"} or {"error"}."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def forking() -> Iterator[Forks]:
    """Run the process until the block ends."""
    code = "from tests.helpers.publishing import serve; serve()"
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Forks(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def serve() -> None:
    """Fork for each line; parts are small, and one file is sent at a time, so that the order of requests is always the same."""
    import huggingface_hub
    import oras.provider

    from llmbuild.publishing.kinds import hf, oci

    assert huggingface_hub.HfApi and huggingface_hub.CommitOperationAdd and oras.provider.Registry
    hf._THREADS, oci.PART = 1, 1000
    for line in sys.stdin:
        wish = json.loads(line)
        result = Path(wish["state"]).with_suffix(".result")
        result.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _child(wish, result)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        found = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else json.loads(result.read_text())
        print(json.dumps(found), flush=True)


def _child(wish: dict[str, Any], result: Path) -> None:
    os.environ.update(wish["env"])
    # Where a shell runs the tests in the background, the signal is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _, reference = publish(wish["to"], Path(wish["files"]), Path(wish["state"]))
        found = {"reference": reference}
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    result.write_text(json.dumps(found))
    os._exit(0)
