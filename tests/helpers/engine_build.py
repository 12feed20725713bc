"""Small graphs of test tasks and one-line builds of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.engine import events
from llmbuild.engine.install import Installation, InstallReport, install
from llmbuild.engine.outcome import BuildResult
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import InputRef, Install, Task
from llmbuild.executors.inline import InlineExecutor


def write_task(label: str, files: dict[str, str], dest: str | None = None, **hints: Json) -> Task:
    return Task(
        "write",
        label,
        1,
        {"files": files},
        {},
        {},
        hints=hints,
        installs=(Install("", dest),) if dest is not None else (),
    )


def join_task(label: str, text: str, *inputs: str | InputRef, dest: str | None = None, **hints: Json) -> Task:
    refs = {f"i{n}": InputRef(one) if isinstance(one, str) else one for n, one in enumerate(inputs)}
    return Task(
        "combine", label, 1, {"text": text}, refs, {}, hints=hints, installs=(Install("joined", dest),) if dest else ()
    )


class Recorder:
    """Collects events."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        event.to_json()
        self.events.append(event)

    def labels(self, kind: type[events.TaskEvent]) -> list[str]:
        return [event.label for event in self.events if isinstance(event, kind)]


def build(store: Store, tasks: Sequence[Task], **options: object) -> tuple[BuildResult, Recorder]:
    """Run a build in this process."""
    recorder = Recorder()
    executor = options.pop("executor", None) or InlineExecutor(store)
    scheduler = Scheduler(store, executor, emit=recorder, project="test", **options)  # type: ignore[arg-type]
    return scheduler.run(tasks), recorder


def install_all(store: Store, root: Path, tasks: Sequence[Task], result: BuildResult) -> InstallReport:
    items = []
    for task in tasks:
        tree = result.outcomes[task.label].tree
        assert tree is not None, result.outcomes[task.label]
        items += [Installation(task.label, tree, one) for one in task.installs]
    return install(store, root, items, known=[task.label for task in tasks])


def text_of(store: Store, result: BuildResult, label: str, path: str = "joined") -> str:
    tree = result.outcomes[label].tree
    assert tree is not None, result.outcomes[label]
    return store.cas.get_bytes(next(f.digest for f in tree.files if f.path == path)).decode()


def snapshot(root: Path) -> dict[str, bytes]:
    """All files below a directory with their content, without llmbuild's own record."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".llmbuild" not in path.relative_to(root).parts[0]
    }
