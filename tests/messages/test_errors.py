"""Every error that a user can meet, as it reads at 120 columns, and some of them in all forms.

golden/ has a file for each directory of tests.  It names tests and what they provoke, which `tests.helpers.provoked` compares
wherever those tests run.  `tests.helpers.message_goldens` writes the files.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmbuild.report.errors import MOST_LINES
from tests.helpers import golden
from tests.helpers.message_goldens import parse, paths, read_goldens, record
from tests.helpers.messages import GOLDEN, ROOT, missing, shown, templates

HOW = "\n\nWrite a test that provokes it, then: python -m tests.helpers.message_goldens TEST-FILE…"


def test_every_test_of_a_golden_file_is_there() -> None:
    """Those that were renamed or removed would not be compared any more."""
    named = read_goldens()
    files = sorted({test.partition("::")[0] for test in named})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert named.keys() <= set(done.stdout.splitlines())


def test_some_errors_at_all_widths_with_and_without_a_terminal() -> None:
    said = record(WIDE)
    text = ""
    for test in WIDE:
        *_, last = said[test].messages.values()
        for color in (False, True):
            for width in (80, 120):
                text += f"[{width}{' on a terminal' if color else ''}]\n{last.rendered(width, color)}\n"
        text += "\n"
    golden.check(GOLDEN / "widths.txt", text)


@pytest.mark.parametrize("name", [path.stem for path in paths()])
def test_no_error_is_longer_than_25_lines(name: str) -> None:
    for test, messages in parse((GOLDEN / f"{name}.txt").read_text(encoding="utf-8")).items():
        for message in messages:
            assert message.count("\n") < MOST_LINES and " more lines" not in message, test


def test_every_error_is_in_a_golden_file() -> None:
    lacking = missing(shown(), templates())
    assert not lacking, "\n".join(map(str, lacking)) + HOW


WIDE = [
    "tests/engine/upkeep/test_archive.py::test_harmful_archives_are_refused[comes after the checksum-<lambda>]",
    "tests/messages/test_building_errors.py::test_it_is_refused[no lock file]",
    "tests/messages/test_building_errors.py::test_it_is_refused[a compiler that cannot link]",
    "tests/messages/test_building_errors.py::test_it_is_refused[a missing tensor]",
]
"""Words to wrap, a path that cannot be, lines that are kept, the words of a program, names that are meant."""
