"""Wrong lock files, answers of servers, statements, projects and environments."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from llmbuild.engine.outcome import BuildResult
from llmbuild.engine.store import Store
from llmbuild.engine.tree import Tree
from llmbuild.errors import LlmbuildError
from llmbuild.manifest.lock import Lock, parse_lock
from llmbuild.report.provenance import TaskResult, statements
from llmbuild.report.provenance_check import check
from llmbuild.sources import hub, request
from llmbuild.sources.http import Promise, download
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.engine_build import build, install_all
from tests.helpers.fuzz import CODES, Fault, Keeper, command
from tests.helpers.fuzz_store import PRECIOUS, names_of, put, trace_bytes
from tests.helpers.random_mutations import Mutator, Raw

COMMIT, SHA256 = "0123456789" * 4, "0123456789abcdef" * 4
LOCK: dict[str, Any] = {
    "version": 1,
    "sources": {
        "hf:org/name@main": {
            "commit": COMMIT,
            "files": {"config.json": {"git-sha1": COMMIT, "sha256": SHA256, "size": 651}, "m.bin": {"sha256": SHA256}},
        },
        "path:checkpoint": {"files": {"model.safetensors": {"sha256": SHA256, "size": 269060552}}},
        "https://host/model.gguf": {"sha256": SHA256},
    },
    "toolchain": {"apache-tvm": f"0.27.0+sha256.{SHA256}", "python": "3.12.4"},
}


class Outside:
    """A directory with files of somebody's beside what the cases use."""

    def __init__(self, base: Path) -> None:
        self.outside = base
        self.inside: tuple[Path, ...] = (base / "work",)
        (base / "work").mkdir()
        (base / "guard").mkdir()
        for name in ("file", "file.json", "file.part"):
            (base / "guard" / name).write_bytes(PRECIOUS)
        self.names = names_of(base)

    def reset(self) -> None:
        pass


class Locks(Outside):
    """A lock file is wrong; what is read of it can be written and read again."""

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        text = toml(mutator.changed(LOCK) if generator.random() < 0.8 else LOCK, generator)
        if generator.random() < 0.3:
            text = mutator.raw(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        lock = parse_lock(Path("llmbuild.lock"), text)
        again = parse_lock(Path("llmbuild.lock"), lock.to_toml())
        if (again.sources, again.toolchain) != (lock.sources, lock.toolchain):
            raise Fault("a lock is another one when it is written and read")


def toml(value: Any, generator: random.Random) -> str:
    """A JSON value as TOML, as far as there is such."""
    lines = []
    for key, one in value.items() if isinstance(value, dict) else ():
        if not isinstance(one, dict) or generator.random() < 0.1:
            lines.insert(0, f"{quoted(key)} = {inline(one)}")
            continue
        tables = {name: item for name, item in one.items() if isinstance(item, dict)}
        lines.append(f"[{quoted(key)}]")
        lines += [f"{quoted(name)} = {inline(item)}" for name, item in one.items() if name not in tables]
        for name, table in tables.items():
            lines.append(f"[{quoted(key)}.{quoted(name)}]")
            lines += [f"{quoted(row)} = {inline(item)}" for row, item in table.items()]
    return "\n".join(lines)


def inline(value: Any) -> str:
    match value:
        case Raw(text):
            return text
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{quoted(key)} = {inline(one)}" for key, one in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(inline, value)) + "]"
        case str():
            return quoted(value)
        case None:
            return '""'
        case _:
            return str(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class Server:
    """Answers each connection with bytes that it is given, whatever was asked."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.answers: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(2)
                    connection.recv(65536)
                    connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                    connection.shutdown(socket.SHUT_WR)


IMPATIENT = request.Patience(attempts=2, delay=0.0, max_delay=0.0, timeout=0.3)


STATUSES = (
    "200 OK", "206 Partial", "416 Range", "404 \x1b[2Jgone", "429 Wait", "302 Found", "503 Busy", "99999 x", "200",
    "100 Continue",
)  # fmt: skip


class Answers(Outside):
    """A server of files answers wrongly; only the promised bytes arrive."""

    BODY = b"0123456789" * 30
    HEADERS = (
        ("Content-Length", (
            "300", "²", "9" * 5000, "-1", "0", "299", "301", "٣", "300, 300", "",
        )),
        ("Content-Range", (
            "bytes 0-9/10", "bytes 150-299/300", "bytes 999-", f"bytes {'9' * 5000}-", "bytes */300", "²", "bytes ²-",
        )),
        ("Retry-After", ("0", "²", "-1", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "\x1b[2J", "soon")),
        ("Location", (
            "http://[::1", "file:///etc/hostname", "ftp://x/", "//", "?", "http://127.0.0.1:99999/", "\x1b]0;x\x07", "/again",
        )),
        ("Transfer-Encoding", ("chunked", "gzip", "²")),
        ("Content-Encoding", ("gzip",)),
    )  # fmt: skip

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        import hashlib

        self._server = Server()
        self._promise = Promise(None, sha256=hashlib.sha256(self.BODY).hexdigest())
        self._sized = Promise(300, sha256=self._promise.sha256)
        request.POLICY = IMPATIENT

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        self._server.answers = [self._answer(generator, mutator) for _ in range(generator.choice((1, 2, 3)))]
        dest, promise = self.outside / "work" / "got", generator.choice((self._promise, self._sized))
        partial = self.outside / "work" / "partial"
        if generator.random() < 0.4:
            put(partial / f"{promise.name}.part", generator.choice((self.BODY[:150], b"x", self.BODY, b"")))
        try:
            download(f"{self._server.url}/m?signature=secret", dest, promise, partial=partial, add=lambda _: None)
        except LlmbuildError as error:
            if "secret" in f"{error}{error.where}{error.why}":
                raise Fault("a query is shown") from error
            if dest.exists():
                raise Fault("a wrong file has arrived") from error
            raise
        if dest.read_bytes() != self.BODY:
            raise Fault("wrong bytes have arrived")

    def reset(self) -> None:
        shutil.rmtree(self.outside / "work")
        (self.outside / "work").mkdir()

    def _answer(self, generator: random.Random, mutator: Mutator) -> bytes:
        status = generator.choice(
            (
                "200 OK",
                "206 Partial",
                "416 Range",
                "404 \x1b[2Jgone",
                "429 Wait",
                "302 Found",
                "503 Busy",
                "99999 x",
                "200",
                "100 Continue",
            )
        )
        lines = [f"HTTP/1.1 {status}"]
        for name, values in generator.sample(self.HEADERS, generator.randrange(4)):
            lines.append(f"{name}: {generator.choice(values)}")
        body = generator.choice(
            (self.BODY, self.BODY[150:], self.BODY[:10], b"", self.BODY * 2, b"12c\r\n" + self.BODY + b"\r\n0\r\n\r\n")
        )
        data = "\r\n".join([*lines, "", ""]).encode() + body
        return mutator.raw(data) if generator.random() < 0.2 else data


ANSWER: dict[str, Any] = {
    "id": "org/tiny",
    "sha": COMMIT,
    "siblings": [
        {"rfilename": "config.json", "size": 545, "blobId": COMMIT},
        {"rfilename": "tokenizer.json", "size": 5, "blobId": COMMIT},
        {"rfilename": "model.safetensors", "size": 300, "lfs": {"sha256": SHA256, "size": 300, "pointerSize": 134}},
    ],
}


class Hubs(Outside):
    """A hub's answer is wrong; what is pinned can be locked and read again."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._server = Server()
        request.POLICY = IMPATIENT

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        body = mutator.text(ANSWER)
        if generator.random() < 0.1:
            body = mutator.raw(body)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._server.answers = [head.encode() + body]
        os.environ["HF_ENDPOINT"] = self._server.url
        pin = hub.resolve("org/tiny", "main", None, None)
        lock = Lock()
        lock.put("hf:org/tiny@main", pin.to_json())
        if parse_lock(Path("llmbuild.lock"), lock.to_toml()).sources != lock.sources:
            raise Fault("what was pinned is another pin when it is read")


class Statements(Outside):
    """A statement of provenance is wrong."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        from tests.report.test_provenance import tasks

        self._store = Store(base / "work" / "store")
        self._project = base / "work" / "project"
        self._project.mkdir()
        made = tasks()
        result: BuildResult
        result, _ = build(self._store, made)
        install_all(self._store, self._project, made, result)
        done = {label: TaskResult(one.action or "", one.tree or Tree(())) for label, one in result.outcomes.items()}  # type: ignore[arg-type]
        self._made = []
        for one in statements("dist", made, done):
            put(self._project / one.path, one.data)
            self._made.append((self._project / one.path, one.data))

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        path, data = generator.choice(self._made)
        path.write_bytes(mutator.raw(data) if generator.random() < 0.1 else mutator.text(json.loads(data)))
        check(path, self._recorded)

    def reset(self) -> None:
        for path, data in self._made:
            path.write_bytes(data)

    def _recorded(self, action: Any) -> Tree | None:
        trace = self._store.traces.get(action)
        return None if trace is None else self._store.cas.get_tree(trace.output)


ENVIRONMENT: dict[str, tuple[str | None, ...]] = {
    "COLUMNS": ("abc", "-1", "0", "1", "9" * 400, "²", "", "80"),
    "LINES": ("abc", "-5"),
    "HOME": (None, "", "relative", "/nonexistent", "/dev/null", "/proc/1", "~"),
    "XDG_CACHE_HOME": ("", "relative", "/nonexistent", "/dev/null"),
    "XDG_CONFIG_HOME": ("", "relative", "/dev/null", "/proc/self"),
    "LLMBUILD_CACHE": (
        "", " ", "/dev/null", "/dev/null/x", "/proc/x", "/nonexistent/x", "~nobody-here/x", "x" * 5000, "\udcff", "/etc/hostname",
    ),
    "LLMBUILD_MEMORY": ("abc", "-1", "0", "9" * 5000, "1e9GB", "²GB", "", "inf", "nan"),
    "HF_ENDPOINT": ("http://[::1", "", "file:///", "no url", "http://user:secret@127.0.0.1:1", "\x1b[2J", "http://127.0.0.1:²"),
    "HF_TOKEN": ("", "a\nb", "ü", "x" * 9000),
    "NO_COLOR": ("", "1"),
    "TERM": ("", "dumb", "\x1b"),
    "LC_ALL": ("C", "xx_YY", "", "POSIX"),
    "LANG": ("C", "\udcff"),
    "PYTHONIOENCODING": ("ascii", "utf-16"),
    "TMPDIR": ("/nonexistent", "/dev/null", "relative"),
    "CC": ("", "/nonexistent/cc", "cc -O2", "\udcff", "a b", "'"),
    "CUDA_HOME": ("/dev/null", "", "\udcff"),
    "PATH": ("", "/nonexistent", ":"),
    "LLMBUILD_TASK_MODULES": ("",),
    "GITHUB_STEP_SUMMARY": ("/dev/null/x", "", "/"),
    "SOURCE_DATE_EPOCH": ("abc", "-1"),
}  # fmt: skip
COMMANDS = (
    ("plan",),
    ("plan", "--json"),
    ("plan", "--check"),
    ("plan", "--strict"),
    ("plan", "--format", "markdown"),
    ("trust", "--dry-run"),
    ("build", "-n"),
    ("why", "lower"),
    ("why", "config", "--json"),
    ("lock", "--check"),
    ("report",),
    ("cache", "stats"),
    ("cache", "gc", "-n"),
    ("cache", "verify"),
    ("verify", "--provenance"),
)


class Projects:
    """A project with a store that knows some of its results: its records, its environment, or both are wrong."""

    def __init__(self, base: Path) -> None:
        self.outside = base
        self.project: ProjectDir = make_project(base, TINY_MANIFEST, cached_checkpoint("llama"))
        (base / "guard").mkdir()
        for name in ("file", "file.json"):
            (base / "guard" / name).write_bytes(PRECIOUS)
        (base / "home").mkdir()
        (base / "tmp").mkdir()
        root = self.project.root
        self.environ: dict[str, str | None] = {"LLMBUILD_CACHE": str(self.project.store), "TMPDIR": str(base / "tmp")}
        # Where the environment says that the store is, there it is.
        stores = [root / name for name in ("relative", " ", "\udcff", "~")]
        self.inside = (
            self.project.store,
            base / "home" / ".cache",
            root / "dist",
            root / ".llmbuild",
            root / "llmbuild.lock",
            base / "tmp",
            *stores,
        )
        ran = self.project.run("build", "fetch", "config", "quantize", "--provenance")
        assert ran.code == 0, ran.text
        self.names = names_of(base)
        self._kept = [Keeper(self.project.store), Keeper(root), Keeper(base / "tmp"), Keeper(base / "home")]
        self._records = sorted(
            path
            for path in [
                *self.project.store.rglob("*.json"),
                *(root / ".llmbuild").rglob("*json"),
                root / "llmbuild.lock",
            ]
            if path.is_file() and "blobs" not in path.parts
        )
        self._here = Path.cwd()
        os.chdir(root)

    def close(self) -> None:
        os.chdir(self._here)

    def case(self, generator: random.Random) -> None:
        arguments, environ = self._prepare(generator)
        command(*arguments, environ={**self.environ, **environ})

    def in_a_process(self, generator: random.Random) -> None:
        """The same, by the command."""
        arguments, environ = self._prepare(generator)
        whole = {**os.environ, "PYTHONPATH": str(self._here), **self.environ, **environ}
        done = subprocess.run(
            [sys.executable, "-m", "llmbuild", *arguments],
            env={name: value for name, value in whole.items() if value is not None},
            capture_output=True,
            check=False,
            timeout=30,
        )
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode not in CODES or "Traceback" in text:
            raise Fault(f"{arguments} with {environ} ended with {done.returncode}: {text[-3000:]}")

    def reset(self) -> None:
        for one in self._kept:
            one.restore()

    def _prepare(self, generator: random.Random) -> tuple[tuple[str, ...], dict[str, str | None]]:
        environ: dict[str, str | None] = {}
        if generator.random() < 0.5:
            for name in generator.sample(sorted(ENVIRONMENT), generator.choice((1, 1, 2, 4))):
                environ[name] = generator.choice(ENVIRONMENT[name])
            if "LLMBUILD_CACHE" not in environ and ("HOME" in environ or "XDG_CACHE_HOME" in environ):
                environ["LLMBUILD_CACHE"] = generator.choice((None, str(self.project.store)))
        if not environ or generator.random() < 0.3:
            self._spoil(generator)
        return generator.choice(COMMANDS), environ

    def _spoil(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        path = generator.choice(self._records)
        data = path.read_bytes()
        if path.suffix == ".lock" or generator.random() < 0.1:
            data = mutator.raw(data)
        elif "traces" in path.parts:
            data = trace_bytes(mutator.text(json.loads(data.partition(b"\n")[0])))
        elif path.suffix == ".ndjson":
            lines = data.splitlines()
            at = generator.randrange(len(lines))
            data = b"\n".join([*lines[:at], mutator.text(json.loads(lines[at])), *lines[at + 1 :]]) + b"\n"
        else:
            data = mutator.text(json.loads(data))
        put(path, data)


class Commands(Projects):
    """As Projects, each case in a process of its own."""

    def case(self, generator: random.Random) -> None:
        self.in_a_process(generator)
