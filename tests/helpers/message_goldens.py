"""The golden files of errors: which tests provoke them, and how they read.

    python -m tests.helpers.message_goldens                      # what no golden file shows yet
    python -m tests.helpers.message_goldens tests/linkers …      # run these tests, and add what they provoke of it
    LLMBUILD_UPDATE_GOLDEN=1 pytest tests/messages               # write known entries anew, after a change of words

An entry names the place in llmbuild that makes the error and a test in which it is made.  The golden tests run those
tests again under `tests.helpers.provoked` and compare every message, so an entry shows what was really said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbuild.errors import LlmbuildError
from llmbuild.report.errors import render_error
from llmbuild.report.style import Style
from tests.helpers.messages import GOLDEN, ROOT, Entry, Template, entries, missing, plain, shown, templates

MOST = 6
"""An entry shows so many messages at most: a test of damaged files makes hundreds at one place."""
GONE = "(this test makes no error there any more)\n\n"
Recorded = Mapping[Entry, Sequence[Mapping[str, str]]]
_RENDERINGS = [(width, color) for color in (False, True) for width in (80, 120)]


def record(tests: Sequence[str]) -> Recorded:
    """Run tests and return what errors each of them made; raises AssertionError when pytest could not run them."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "provoked.ndjson")
        out.touch()
        env = {**os.environ, "LLMBUILD_PROVOKED": str(out), "TVM_BIND_THREADS": "0"}
        # The tests of this process must not reach into the one that it starts.
        env = {name: value for name, value in env.items() if not name.startswith(("PYTEST_", "COLUMNS"))}
        options = ["-p", "tests.helpers.provoked", "-p", "no:cacheprovider", "-q", "--hypothesis-seed=1"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--basetemp={directory}/base", *tests],
            cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=1200,
        )  # fmt: skip
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert done.returncode in (0, 1) and lines, done.stdout[-4000:] + done.stderr[-4000:]
    found: dict[Entry, dict[str, Mapping[str, str]]] = defaultdict(dict)
    for line in lines:
        entry = Entry(line["file"], line["function"], line["test"])
        if len(found[entry]) < MOST:
            found[entry].setdefault(_said(line), line)
    return {entry: tuple(messages.values()) for entry, messages in found.items()}


def _said(line: Mapping[str, Any]) -> str:
    return "\n".join(line[part] or "" for part in ("where", "what", "why", "fix"))


def golden_text(chosen: Iterable[Entry], recorded: Recorded) -> str:
    """A golden file: each entry's messages in the four renderings, those that are equal once."""
    text = ""
    for entry in sorted(set(chosen), key=lambda one: (one.file, one.function, one.test)):
        text += entry.heading
        messages = recorded.get(entry, ())
        text += "".join(map(_renderings, messages)) or GONE
    return text


def _renderings(line: Mapping[str, str]) -> str:
    error = LlmbuildError(line["what"], where=line["where"], why=line["why"], fix=line["fix"])
    named: dict[str, list[str]] = {}
    for width, color in _RENDERINGS:
        name = f"{width}{' on a terminal' if color else ''}"
        named.setdefault(render_error(error, Style(width, color)), []).append(name)
    return "".join(f"[{', '.join(names)}]\n{text}\n" for text, names in named.items()) + "\n"


def choose(recorded: Recorded, wanted: Iterable[Template]) -> list[Entry]:
    """Few entries that show all of the wanted templates which were provoked; of equals the first by name."""
    texts = {entry: [plain(_said(line)) for line in lines] for entry, lines in recorded.items()}
    covers = {
        entry: {one for one in wanted if any(one.pattern.search(text) for text in said)}
        for entry, said in texts.items()
    }
    left, chosen, tests = set().union(*covers.values()), list[Entry](), set[str]()
    while left:
        # A test that runs anyway costs nothing more.
        best = max(
            sorted(covers, key=lambda one: one.heading),
            key=lambda one: (len(covers[one] & left) > 0, one.test in tests, len(covers[one] & left)),
        )
        chosen.append(best)
        tests.add(best.test)
        left -= covers[best]
    return chosen


def main(tests: Sequence[str]) -> int:
    lacking = missing(shown(), templates())
    if tests:
        recorded = record(tests)
        again = record(sorted({entry.test for entry in recorded}))
        stable = {entry: lines for entry, lines in recorded.items() if list(map(_said, lines)) == list(map(_said, again.get(entry, ())))}  # fmt: skip # noqa: E501
        add(choose(stable, lacking), stable)
        lacking = missing(shown(), templates())
    print("\n".join(map(str, lacking)) + f"\n{len(lacking)} texts are in no golden file")
    return 0


def add(chosen: Sequence[Entry], recorded: Recorded) -> None:
    """Add entries to the golden files of their layers."""
    for layer in {entry.layer for entry in chosen}:
        path = GOLDEN / f"{layer}.txt"
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        known = entries(old)
        more = golden_text([entry for entry in chosen if entry.layer == layer and entry not in known], recorded)
        blocks = _blocks(old) | _blocks(more.replace("\x1b", "␛"))
        path.parent.mkdir(parents=True, exist_ok=True)
        ordered = sorted(blocks, key=lambda one: (one.file, one.function, one.test))
        path.write_text("".join(blocks[entry] for entry in ordered), encoding="utf-8")


def _blocks(text: str) -> dict[Entry, str]:
    """A golden file's text by entry."""
    starts = [text.index(entry.heading) for entry in entries(text)]
    ends = [*starts[1:], len(text)][: len(starts)]
    return {entry: text[start:end] for entry, start, end in zip(entries(text), starts, ends, strict=True)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
