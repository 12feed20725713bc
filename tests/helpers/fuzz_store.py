"""Wrong stores, archives and records of what is installed: nothing in them is believed, and a build makes them right again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbuild.canonical import digest_bytes, digest_json
from llmbuild.engine.install import Installation, inspect, install
from llmbuild.engine.store import Store
from llmbuild.engine.task import Files, InputRef, JsonFields, Task
from tests.helpers.engine_build import build, install_all, join_task, write_task
from tests.helpers.fuzz import Fault, Keeper, command
from tests.helpers.random_mutations import NO_DIGESTS, Mutator

PRECIOUS = b"what nobody may touch"
MEMOS = ("stat.json", "uses", "verified", "version", "index/cache.db", "gc.lock")


def tasks() -> list[Task]:
    return [
        write_task("a", {"x": "1", "sub/c.json": '{"v": "1", "w": 1}'}, dest="dist/m"),
        join_task("b", "b", "a", InputRef("a", JsonFields("sub/c.json", ("v",))), dest="dist/libs/b.so"),
        join_task("c", "c", "b", InputRef("a", Files(("x",))), dest="dist/libs/c.so"),
    ]


def names_of(base: Path) -> list[str]:
    """Digests and paths that lead to the guarded files from where digests and names are joined to directories."""
    inside = ["guard/file", "guard", "guard/file.json", "project/own.txt", "project"]
    ups = ["../", "../../", "../../../", "..//../", "..//..//../"]
    paths = [f"{up}{name}" for up in ups for name in inside]
    return [
        *paths,
        *(f"{base}/{name}" for name in inside),
        *(f"../{'../' * 20}{base}/{name}"[1:] for name in inside),
        *NO_DIGESTS,
    ]


class World:
    """A store with three results, a project that has them, and files of somebody's beside both."""

    def __init__(self, base: Path) -> None:
        self.outside = base
        self.store = base / "store"
        self.project = base / "project"
        self.archive = base / "in.tar"
        self.inside: tuple[Path, ...] = (
            self.store,
            self.project / "dist",
            self.project / ".llmbuild",
            self.archive,
            base / "out.tar",
            base / "runs",
        )
        (base / "guard" / "sub").mkdir(parents=True)
        for name in ("file", "file.json", "sub/file"):
            (base / "guard" / name).write_bytes(PRECIOUS)
        self.project.mkdir()
        (self.project / "own.txt").write_bytes(PRECIOUS + b" in the project")
        store = Store(self.store)
        self.tasks = tasks()
        result, _ = build(store, self.tasks)
        store.history("test").update({label: str(one.action) for label, one in result.outcomes.items()})
        install_all(store, self.project, self.tasks, result)
        store.index.recent("combine")
        self.traces: dict[str, dict[str, Any]] = {
            name: json.loads(store.traces.path(name).read_bytes().partition(b"\n")[0]) for name in store.traces.names()
        }
        self.trees = {name: json.loads(store.cas.get_bytes(trace["output"])) for name, trace in self.traces.items()}
        self.records = {name: json.loads(store.action_path(name).read_bytes()) for name in self.traces}
        self.items = [
            Installation(task.label, tree, one)
            for task in self.tasks
            for one in task.installs
            if (tree := result.outcomes[task.label].tree) is not None
        ]
        store.stat_cache.digest(base / "guard" / "file")
        store.close()
        self.stats = {str(base / "guard/file"): [1, 2, 3, 4, "0" * 64]}
        (self.store / "stat.json").write_text(json.dumps(self.stats))
        self.history = json.loads(next((self.store / "projects").iterdir()).read_bytes())
        self.names = [*names_of(base), *self.traces, digest_bytes(PRECIOUS)]
        # Old enough that a use is marked in their times.
        for path in [*(base / "guard").rglob("*"), *(self.store / "traces").rglob("*.json")]:
            os.utime(path, (1e9, 1e9))
        self._kept = [Keeper(self.store), Keeper(self.project)]

    def reset(self) -> None:
        for one in self._kept:
            one.restore()

    def cache(self, *arguments: str) -> int:
        name, *rest = arguments
        return command("cache", name, "--cache-dir", str(self.store), *rest)[0]

    def build(self) -> None:
        """What was wrong is found, and made again."""
        store = Store(self.store)
        try:
            result, _ = build(store, self.tasks, force=frozenset())
            for outcome in result.outcomes.values():
                if outcome.failure is not None:
                    raise outcome.failure.to_error()
            install(store, self.project, self.items, known=[task.label for task in self.tasks])
        finally:
            store.close()


def trace_bytes(body: bytes) -> bytes:
    return body + b"\n" + digest_bytes(body).encode() + b"\n"


class Records(World):
    """One or two files of the store are wrong; then commands look at it, repair it, and builds use it."""

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        for _ in range(generator.choice((1, 1, 2))):
            self._spoil(generator, mutator)
        looks: list[Callable[[], object]] = [
            lambda: self.cache("stats"),
            lambda: self.cache("gc", "-n"),
            lambda: self.cache("export", "--all", str(self.outside / "out.tar")),
            self.build,
            self._repair,
            lambda: self.cache("gc", "--max-size", "1B", "--grace", "0s"),
        ]
        for look in generator.choices(looks, weights=(5, 3, 2, 5, 3, 2), k=generator.choice((1, 2))):
            look()

    def _repair(self) -> None:
        if self.cache("verify", "--repair") == 0 and self.cache("verify") != 0:
            raise Fault("what was repaired is still wrong")

    def _spoil(self, generator: random.Random, mutator: Mutator) -> None:
        action = generator.choice(list(self.traces))
        trace = self.store / "traces" / action[:2] / f"{action[2:]}.json"
        match generator.randrange(10):
            case 0 | 1 | 2:
                put(trace, trace_bytes(mutator.text(self.traces[action])))
            case 3 | 4:
                data = mutator.text(self.trees[action])
                digest = digest_bytes(data)
                put(self.store / "blobs" / digest[:2] / digest[2:], data)
                put(trace, trace_bytes(json.dumps({**self.traces[action], "output": digest}).encode()))
            case 5 | 6:
                digest, data = _record(mutator, self.records[action], action)
                put(self.store / "actions" / digest[:2] / f"{digest[2:]}.json", data)
            case 7:
                name = generator.choice(MEMOS)
                path = self.store / name
                old_bytes = path.read_bytes() if path.is_file() else b""
                put(path, mutator.text(self.stats) if name == "stat.json" else mutator.raw(old_bytes))
            case 8:
                path = next((self.store / "projects").iterdir(), None) if (self.store / "projects").is_dir() else None
                if path is None or not path.is_file():
                    return
                put(path, mutator.text(self.history) if generator.random() < 0.8 else mutator.raw(path.read_bytes()))
            case _:
                self._replace(generator, mutator)

    def _replace(self, generator: random.Random, mutator: Mutator) -> None:
        """Another kind of thing in the place of a file or a directory, or other bytes."""
        path = generator.choice([one for one in sorted(self.store.rglob("*")) if "scratch" not in one.parts])
        data = path.read_bytes() if path.is_file() else b""
        was_file = path.is_file()
        remove(path)
        match generator.randrange(6):
            case 0 if was_file:
                path.symlink_to(self.outside / generator.choice(("guard", "guard/file", "nowhere", "guard/sub")))
            case 1:
                path.mkdir()
                (path / "more").write_bytes(b"x")
            case 2:
                path.write_bytes(b"")
            case 3:
                path.write_bytes(mutator.raw(data))
            case 4:
                path.with_name("\udcff strange\n").write_bytes(data)
            case _:
                pass


def _record(mutator: Mutator, record: dict[str, Any], action: str) -> tuple[str, bytes]:
    """A wrong record of an action, under the digest that its key has where it has one."""
    data = mutator.text(record)
    try:
        return digest_json(json.loads(data)["key"]), data
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return action, data


class Archives(World):
    """One member of an archive is wrong, and its checksum right; then it is imported, looked at and built with."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.cache("export", "--all", str(self.archive))
        with tarfile.open(self.archive) as tar:
            self._members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        self._members = self._members[:-1]

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        if generator.random() < 0.15:
            self.archive.write_bytes(mutator.raw(write_archive(self._members)))
        else:
            self.archive.write_bytes(write_archive(self._spoilt(generator, mutator), oddity=self._oddity(generator)))
        if generator.random() < 0.5:
            remove(self.store)
        code = command("cache", "import", "--cache-dir", str(self.store), str(self.archive))[0]
        if code == 0:
            looks = (
                lambda: self.cache("stats"),
                lambda: self.cache("gc", "-n"),
                self.build,
                lambda: self.cache("verify"),
                lambda: self.cache("gc", "--max-size", "1B", "--grace", "0s"),
            )
            if generator.choice(looks)():
                raise Fault("an archive was taken that is not right")

    def reset(self) -> None:
        super().reset()
        self.archive.write_bytes(b"")

    def _spoilt(self, generator: random.Random, mutator: Mutator) -> list[tuple[str, bytes]]:
        members = dict(self._members)
        head = json.loads(members.pop("llmbuild-cache"))
        name = generator.choice(sorted(members))
        folder, _, digest = name.partition("/")
        match generator.randrange(6):
            case 0:
                head_text = mutator.text(head)
                return [("llmbuild-cache", head_text), *members.items()]
            case 1 | 2:
                action = generator.choice(sorted(self.traces))
                members[f"traces/{action}"] = trace_bytes(mutator.text(self.traces[action]))
            case 3:
                action = generator.choice(sorted(self.traces))
                del members[f"actions/{action}"]
                new, data = _record(mutator, self.records[action], action)
                members[f"actions/{new}"] = data
                if f"traces/{action}" in members and generator.random() < 0.5:
                    body = {**self.traces[action], "action": new}
                    del members[f"traces/{action}"]
                    members[f"traces/{new}"] = trace_bytes(json.dumps(body).encode())
            case 4:
                action = generator.choice(sorted(self.traces))
                data = mutator.text(self.trees[action])
                members[f"blobs/{digest_bytes(data)}"] = data
                members[f"traces/{action}"] = trace_bytes(
                    json.dumps({**self.traces[action], "output": digest_bytes(data)}).encode()
                )
            case _:
                data = members.pop(name)
                wrong = str(mutator.value(digest)).encode("utf-8", "replace").decode()[:5000].replace("\0", "")
                members[f"{generator.choice((folder, folder, '..', 'blobs', ''))}/{wrong}"] = data
        counts = {kind: sum(one.startswith(f"{kind}/") for one in members) for kind in ("blobs", "actions", "traces")}
        order = {kind: at for at, kind in enumerate(counts)}
        ordered = sorted(members.items(), key=lambda one: (order.get(one[0].partition("/")[0], 9), one[0]))
        return [("llmbuild-cache", json.dumps({**head, **counts}, sort_keys=True).encode()), *ordered]

    @staticmethod
    def _oddity(generator: random.Random) -> Callable[[tarfile.TarInfo], None] | None:
        if generator.random() < 0.85:
            return None
        kind = generator.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"x")
        )
        chosen = generator.randrange(12)

        def change(member: tarfile.TarInfo, seen: list[int] = [0]) -> None:  # noqa: B006
            if seen[0] == chosen:
                member.type = kind
                member.linkname = "../guard/file"
            seen[0] += 1

        return change


def write_archive(members: list[tuple[str, bytes]], oddity: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    """An archive with these members and a right checksum."""
    stream = io.BytesIO()
    checksum = hashlib.sha256()
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [*members, ("checksum", b"")]:
            data = checksum.hexdigest().encode() if name == "checksum" else content
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o444
            if oddity is not None:
                oddity(member)
            tar.addfile(member, io.BytesIO(data))
            checksum.update(f"{name} {len(data)} {digest_bytes(data)}\n".encode("utf-8", "replace"))
    return stream.getvalue()


class Installed(World):
    """The record of what is installed is wrong; then a build installs, and another one that makes less."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.linked = {name: base / "linked" / name for name in ("x", "b.so", "own", "sub/c.json")}
        for path in self.linked.values():
            put(path, PRECIOUS)
        self.inside = (*self.inside, base / "linked")

    def case(self, generator: random.Random) -> None:
        mutator = Mutator(generator, self.names)
        record = self.project / ".llmbuild" / "installed.json"
        value = json.loads(record.read_bytes())
        files = value.get("files", value)
        rows = list(files.values())
        for _ in range(generator.choice((0, 1, 2))):
            # An entry of the right form, for a file that is not llmbuild's.
            row = list(generator.choice(rows))
            row[0], row[2] = digest_bytes(PRECIOUS), None
            files[generator.choice(self.names)] = row
        if generator.random() < 0.3 and "outputs" in value:
            value["outputs"] += generator.sample(self.names, 2)
        if generator.random() < 0.3 and isinstance(value.get("moving"), dict):
            value["moving"][generator.choice((".llmbuild-tmp-1", "dist/.llmbuild-tmp-1", *self.names))] = [
                generator.choice(("dist/m", "guard", *self.names)),
                1,
            ]
        data = mutator.write(value) if generator.random() < 0.3 else mutator.text(value)
        record.write_bytes(mutator.raw(data) if generator.random() < 0.1 else data)
        if generator.random() < 0.2:
            names = (".llmbuild/lock", "dist/m", "dist/libs", "dist/m/x")
            replaced = self.project / generator.choice(names)
            remove(replaced)
            replaced.symlink_to(self.outside / generator.choice(("guard/file", "linked")))
        store = Store(self.store)
        try:
            inspect(self.project, self.items)
            install(store, self.project, self.items, known=[task.label for task in self.tasks])
            install(store, self.project, self.items[:1], known=["a"])
        finally:
            store.close()
            # New results may lie behind a link, and nothing that lay there changes.
            if {path.read_bytes() for path in self.linked.values()} != {PRECIOUS}:
                raise Fault("something behind a link was replaced")

    def reset(self) -> None:
        super().reset()
        for path in (self.outside / "linked").rglob("*"):
            if path.is_file() and path not in self.linked.values():
                path.unlink()


def put(path: Path, data: bytes) -> None:
    """Write a file where another one may be in the place of its directory."""
    for directory in path.parents:
        if directory.is_symlink() or directory.is_file():
            remove(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    path.write_bytes(data)


def remove(path: Path) -> None:
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
