"""The report on a build, from recorded events: what it says, to the character, and what it works out."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from llmbuild.engine import events
from llmbuild.report.build_html import build_html
from llmbuild.report.build_markdown import build_markdown, markdown_text
from llmbuild.report.build_report import BuildReport, build_report
from llmbuild.report.build_text import build_text
from llmbuild.report.style import Style
from tests.helpers.build_events import (
    BEGAN,
    BUILD,
    CONFIG,
    FAILED,
    FETCH,
    KEY,
    KILLED,
    LINK,
    LOWER,
    NULL,
    QUANTIZE,
    WEB_LINK,
    WEB_LOWER,
    lines,
)


def report(of: object) -> BuildReport:
    return build_report(lines(of))  # type: ignore[arg-type]


def text(of: object, width: int = 80) -> str:
    return build_text(report(of), Style(width)) + "\n"


def test_a_build_at_80_columns() -> None:
    assert text(BUILD) == dedent(
        """\
        assistants: built 4 of 7 tasks in 40.2 s, 3 cached

        2 root causes, 2 followed
          context-window-size 2048 -> 4096
            config[smollm2, q4f32_1]
            then lower[smollm2, q4f32_1, native]
            then link[smollm2, q4f32_1, native]
          apache-tvm 0.26.0 -> 0.27.0.post1
            lower[smollm2, q4f32_1, web]

        critical path 40.0 s of 40.2 s
                0.05 s  config[smollm2, q4f32_1]
                40.0 s  lower[smollm2, q4f32_1, web]

        slowest tasks
                40.0 s  lower[smollm2, q4f32_1, web]  640.0 MB of memory, 2.2 MB
                31.4 s  lower[smollm2, q4f32_1, native]  730.0 MB of memory, 2.1 MB
                 0.1 s  link[smollm2, q4f32_1, native]  21.0 MB of memory, 1.2 MB
                0.05 s  config[smollm2, q4f32_1]  22.0 MB of memory, 3.5 MB

        cache   3 of 7 tasks from the cache, which once took 1 min 5 s (189.8 MB)
        memory  730.0 MB at most, by lower[smollm2, q4f32_1, native]
        """
    )


def test_a_build_at_120_columns() -> None:
    assert text(BUILD, 120) == text(BUILD)


@pytest.mark.parametrize("width", [50, 80, 120])
def test_no_line_passes_the_width(width: int) -> None:
    for build in (BUILD, FAILED, KILLED):
        for line in text(build, width).splitlines()[1:]:
            assert len(line) <= width or "which once took" in line or "at most, by" in line


def test_numbers_go_below_a_label_that_leaves_no_room() -> None:
    assert "        40.0 s  lower[smollm2, q4f32_1, web]\n                640.0 MB of memory, 2.2 MB\n" in text(
        BUILD, 60
    )


def test_a_failed_build() -> None:
    assert text(FAILED).startswith(
        dedent(
            """\
            assistants: failed after 40.1 s: 1 failed, 2 built, 2 cached, 2 not run

            2 root causes, 1 followed
            """
        )
    )
    assert dedent(
        """\

        failed
          lower[smollm2, q4f32_1, native]: the model needs 24 GB <and> the target has 16

        """
    ) in text(FAILED)


def test_a_build_that_was_killed() -> None:
    assert text(KILLED).startswith("assistants: the build was cut off after 0.08 s; 1 of 7 tasks built, 2 cached\n")
    assert {task.label for task in report(KILLED).of("unfinished")} == {LOWER, LINK, WEB_LOWER, WEB_LINK}


def test_an_interrupted_build() -> None:
    stop = events.Summary(time=BEGAN, ran=1, cached=2, failed=0, skipped=4, wall_s=9, interrupted=True)
    assert text((*KILLED, stop)).startswith("assistants: interrupted after 9.0 s: 1 built, 2 cached\n")


def test_a_null_build() -> None:
    assert text(NULL) == dedent(
        """\
        assistants: up to date: 7 tasks cached (0.1 s)

        cache   7 of 7 tasks from the cache, which once took 7.0 s (7.0 kB)
        """
    )


def test_roots_are_apart_from_what_followed() -> None:
    by_label = {task.label: task for task in report(BUILD).tasks}
    assert by_label[CONFIG].causes == () and by_label[WEB_LOWER].causes == ()
    assert by_label[LOWER].causes == (CONFIG,)
    assert by_label[LINK].causes == (LOWER,)
    first, second = report(BUILD).causes
    assert (first.tasks, first.followed) == ((CONFIG,), (LOWER, LINK))
    assert (second.tasks, second.followed) == ((WEB_LOWER,), ())


def test_what_early_cutoff_pruned_is_silent() -> None:
    """The library whose objects came out as before is cached: no part of the text, table or causes names it."""
    assert WEB_LINK not in text(BUILD)
    assert WEB_LINK not in build_markdown(report(BUILD))


def test_new_tasks_are_no_root_cause() -> None:
    from llmbuild.plan.reasons import NeverBuilt
    from llmbuild.report.events import Explained

    new = [Explained(time=BEGAN, label=label, reasons=(NeverBuilt(),)) for label in (FETCH, QUANTIZE)]
    assert "\n2 new tasks\n  never built\n    fetch[smollm2]\n    quantize[smollm2, q4f32_1]\n" in text(
        (BUILD[0], *new)
    )


def test_the_critical_path_goes_through_the_graph() -> None:
    assert report(BUILD).critical == (CONFIG, WEB_LOWER)
    assert report(BUILD).critical_s == pytest.approx(40.05)
    assert report(NULL).critical == ()


def test_json_is_json_and_has_every_part() -> None:
    value = json.loads(json.dumps(report(BUILD).to_json()))
    assert value["format"] == 1
    assert value["counts"] == {"ran": 4, "cached": 3, "failed": 0, "skipped": 0, "unfinished": 0}
    assert value["cache"] == {"hits": 3, "tasks": 7, "saved-s": 65.1, "saved-bytes": 189_754_432, "reused": [0, 0]}
    assert value["peak-memory"] == {"task": LOWER, "bytes": 730_000_000}
    assert value["critical-path"]["tasks"] == [CONFIG, WEB_LOWER]
    assert value["slowest"][0] == WEB_LOWER
    assert value["causes"][0] == {
        "reasons": ["context-window-size 2048 -> 4096"],
        "tasks": [CONFIG],
        "followed": [LOWER, LINK],
        "new": False,
    }
    lower = next(task for task in value["tasks"] if task["label"] == LOWER)
    assert (lower["status"], lower["start"], lower["needs"]) == ("ran", pytest.approx(0.08), [CONFIG])


def test_what_was_reused_is_told() -> None:
    told = lines(BUILD)
    counts = iter([[90, 96], [0, 4]])
    for event in told:
        if event["type"] == "finished" and event["label"] in (LOWER, WEB_LOWER):
            event["reused"] = next(counts)
    found = build_report(told)
    assert json.loads(json.dumps(found.to_json()))["cache"]["reused"] == [90, 100]
    assert "; 90 of 100 intermediate results of the others" in build_text(found, Style(120))


def test_unknown_types_fields_and_reasons_are_passed_over() -> None:
    told = lines(BUILD)
    for event in told:
        event["new-field"] = 1
        for reason in event.get("reasons", ()):
            reason["reason"], reason["text"] = "newer", "a newer reason"
    told.insert(3, {"v": 1, "type": "newer", "time": BEGAN, "label": CONFIG})
    assert build_report(told).of("ran")[0].reasons == ("a newer reason",)


def test_an_older_record_without_a_graph() -> None:
    told = lines(BUILD)
    del told[0]["needs"]
    assert build_report(told).critical == (WEB_LOWER,)


def test_no_events_at_all() -> None:
    assert build_report([]).tasks == ()


def test_the_job_summary() -> None:
    assert build_markdown(report(FAILED)) == dedent(
        r"""
        ### assistants: failed after 40.1 s: 1 failed, 2 built, 2 cached, 2 not run

        | task | | time | memory | output | why |
        |---|---|--:|--:|--:|---|
        | `config[smollm2, q4f32_1]` | built | 0.05 s | 22.0 MB | 3.5 MB | context-window-size 2048 -\> 4096 |
        | `lower[smollm2, q4f32_1, native]` | **failed** | 20.0 s |  |  | the model needs 24 GB \<and\> the target has 16 |
        | `link[smollm2, q4f32_1, native]` | not run |  |  |  |  |
        | `lower[smollm2, q4f32_1, web]` | built | 40.0 s | 640.0 MB | 2.2 MB | apache-tvm 0.26.0 -\> 0.27.0.post1 |
        | `link[smollm2, q4f32_1, web]` | not run |  |  |  |  |

        2 of 7 tasks from the cache, which once took 1 min 5 s (188.5 MB).
        Most memory: 640.0 MB by `lower[smollm2, q4f32_1, web]`.

        <details><summary>2 root causes, 1 followed</summary>

        - context-window-size 2048 -\> 4096: `config[smollm2, q4f32_1]`; then `lower[smollm2, q4f32_1, native]`
        - apache-tvm 0.26.0 -\> 0.27.0.post1: `lower[smollm2, q4f32_1, web]`

        </details>

        <details><summary>critical path: 40.0 s</summary>

        1. `config[smollm2, q4f32_1]` 0.05 s
        1. `lower[smollm2, q4f32_1, web]` 40.0 s

        </details>
        """
    ).lstrip("\n")


def test_the_job_summary_of_many_tasks_is_cut() -> None:
    labels = tuple(f"config[m{number}, q4f32_1]" for number in range(2000))
    told = lines(
        [
            events.PlanMade(time=0, tasks=labels, jobs=2, project="many", needs=((),) * 2000),
            *(
                events.Finished(
                    time=1, label=label, action=KEY, output=KEY, output_size=1, wall_s=1, cpu_s=1, peak_rss=1
                )
                for label in labels
            ),
        ]
    )
    summary = build_markdown(build_report(told))
    assert "| and 1950 more |" in summary and len(summary) < 10_000


def test_tasks_that_ran_again_are_told() -> None:
    again = [{"v": 1, "type": "checked", "time": BEGAN, "label": label, "differences": []} for label in (FETCH, CONFIG)]
    same = build_report([*lines(NULL)[:-1], *again, *lines(NULL)[-1:]])
    assert "\ncheck   2 tasks ran again, all gave the same bytes\n" in build_text(same, Style(80)) + "\n"
    again[1]["differences"] = [{"path": "x"}]
    other = build_report([*lines(NULL)[:-1], *again, *lines(NULL)[-1:]])
    assert f"2 tasks ran again, 1 gave other bytes: {CONFIG}" in build_text(other, Style(80))
    assert "ran again" in build_markdown(other) and "ran again" in build_html(other)
    assert other.to_json()["checked"] == {"tasks": [FETCH, CONFIG], "different": [CONFIG]}


def test_markdown_marks_are_escaped() -> None:
    assert markdown_text("a|b\n`c` <d> [e](f) *g*") == r"a\|b \`c\` \<d\> \[e\](f) \*g\*"
