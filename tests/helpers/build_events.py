"""A recorded build as events, for tests of what is made from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.plan.reasons import InputChanged, ParameterChanged, Reason, ToolChanged
from llmbuild.report.events import Explained, Installed

FETCH, QUANTIZE, CONFIG = "fetch[smollm2]", "quantize[smollm2, q4f32_1]", "config[smollm2, q4f32_1]"
LOWER, LINK = "lower[smollm2, q4f32_1, native]", "link[smollm2, q4f32_1, native]"
WEB_LOWER, WEB_LINK = "lower[smollm2, q4f32_1, web]", "link[smollm2, q4f32_1, web]"
TASKS = (FETCH, QUANTIZE, CONFIG, LOWER, LINK, WEB_LOWER, WEB_LINK)
NEEDS = ((), (0,), (0,), (2,), (3,), (2,), (5,))
KEY = "3f" * 32
BEGAN = 1_790_000_000.0

WINDOW = ParameterChanged("metadata/context-window-size", 2048, 4096)
FOLLOWS = InputChanged(CONFIG, "", 2048, 4096, field="context_window_size")
FOLLOWS_TOO = InputChanged(CONFIG, "", 2048, 4096, field="model_config/context_window_size")
OBJECTS = InputChanged(LOWER, "lib0.o", "a" * 64, "b" * 64)
TVM = ToolChanged("apache-tvm", f"0.26.0+sha256.{'a' * 64}", f"0.27.0.post1+sha256.{'b' * 64}")


def _begin(at: float, label: str, *reasons: Reason) -> list[events.Event]:
    time = BEGAN + at
    return [
        events.Queued(time=time, label=label, action=KEY),
        Explained(time=time, label=label, reasons=reasons),
        events.Started(time=time, label=label, action=KEY),
    ]


def _end(at: float, label: str, wall: float, size: int, rss: int) -> events.Event:
    return events.Finished(
        time=BEGAN + at,
        label=label,
        action=KEY,
        output=KEY,
        output_size=size,
        wall_s=wall,
        cpu_s=wall,
        peak_rss=rss,
    )


def _cached(label: str, wall: float, size: int) -> events.Event:
    return events.CachedTask(
        time=BEGAN + 0.01, label=label, action=KEY, output=KEY, source="store", output_size=size, wall_s=wall
    )


def _summary(
    at: float, ran: int, cached: int, failed: int = 0, skipped: int = 0, *, stop: bool = False
) -> events.Event:
    return events.Summary(
        time=BEGAN + at, ran=ran, cached=cached, failed=failed, skipped=skipped, wall_s=at, interrupted=stop
    )


_START: Sequence[events.Event] = (
    events.PlanMade(time=BEGAN, tasks=TASKS, jobs=2, project="assistants", needs=NEEDS),
    _cached(FETCH, 12.0, 105_454_432),
    _cached(QUANTIZE, 53.0, 83_000_000),
    *_begin(0.02, CONFIG, WINDOW),
    events.Predicted(time=BEGAN + 0.02, seconds=(12.0, 53.0, 0.1, 31.0, 0.1, 40.0, 0.1)),
    events.TaskProgress(time=BEGAN + 0.03, label=CONFIG, done=1, total=2, unit="files"),
    _end(0.07, CONFIG, 0.05, 3_500_000, 22_000_000),
    *_begin(0.08, LOWER, FOLLOWS, FOLLOWS_TOO),
    *_begin(0.08, WEB_LOWER, TVM),
)

BUILD: Sequence[events.Event] = (
    *_START,
    _end(31.5, LOWER, 31.4, 2_100_000, 730_000_000),
    *_begin(31.5, LINK, OBJECTS),
    _end(31.6, LINK, 0.1, 1_200_000, 21_000_000),
    _end(40.1, WEB_LOWER, 40.0, 2_200_000, 640_000_000),
    # The objects of this one came out as before, so that its library is not linked again: it stays silent.
    _cached(WEB_LINK, 0.1, 1_300_000),
    Installed(time=BEGAN + 40.2, written=("dist/libs/a.so",), outputs=("dist/libs/smollm2-q4f32_1-native.so",)),
    _summary(40.2, 4, 3),
)

FAILED: Sequence[events.Event] = (
    *_START,
    events.Failed(
        time=BEGAN + 20.1,
        label=LOWER,
        action=KEY,
        failure=TaskFailure("the model needs 24 GB <and> the target has 16", fix="a smaller window", log_tail="x\n"),
    ),
    events.Skipped(time=BEGAN + 20.1, label=LINK, because=LOWER),
    _end(40.1, WEB_LOWER, 40.0, 2_200_000, 640_000_000),
    events.Skipped(time=BEGAN + 40.1, label=WEB_LINK, because=""),
    _summary(40.1, 2, 2, 1, 2),
)

KILLED = _START

NULL: Sequence[events.Event] = (
    _START[0],
    *(_cached(label, 1.0, 1000) for label in TASKS),
    Installed(time=BEGAN + 0.1, outputs=("dist/libs/a.so",)),
    _summary(0.1, 0, 7),
)


def lines(build: Sequence[events.Event]) -> list[dict[str, Any]]:
    """The events as a reader finds them in a file."""
    return [json.loads(json.dumps(event.to_json())) for event in build]
