"""The golden files of errors: which test provokes each message, and how it reads.

    python -m tests.helpers.message_goldens                     # after a change of words: write all of them anew
    python -m tests.helpers.message_goldens tests/linkers …     # run these tests, and add what they provoke of what is lacking

An error text of the source (see `tests.helpers.messages`) is shown by one message.  A golden file names tests of one
directory, and under each what it provokes.  Where in llmbuild a message is made stands nowhere, so code may move.  Whenever
one of those tests runs, `tests.helpers.provoked` compares: every message has to be among what it provokes.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmbuild.errors import LlmbuildError
from llmbuild.report.errors import render_error
from llmbuild.report.style import Style
from tests.helpers.messages import GOLDEN, ROOT, Template, missing, plain, shown, templates

OTHERS = ("outputs", "widths")
"""Golden files of tests/messages that have another form."""
ANEW = "messages are different; python -m tests.helpers.message_goldens writes them anew"
TRIES = 5
"""A message that a second run does not repeat is given up, and another one is chosen, so many times."""


@dataclass(frozen=True, order=True)
class Message:
    """What was said of one error."""

    what: str
    where: str | None
    why: str | None
    fix: str | None

    def rendered(self, width: int = 120, color: bool = False) -> str:
        error = LlmbuildError(self.what, where=self.where, why=self.why, fix=self.fix)
        return render_error(error, Style(width, color))


@dataclass
class Said:
    """The messages that a test provokes, by how they read, and how long it runs."""

    seconds: float = 0.0
    messages: dict[str, Message] = field(default_factory=dict)


Chosen = dict[str, list[str]]
"""By test, the messages that a golden file shows."""


def record(tests: Sequence[str]) -> dict[str, Said]:
    """Run tests and return what errors each of them made; raises AssertionError when pytest could not run them."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "provoked.ndjson")
        out.touch()
        env = {**os.environ, "LLMBUILD_PROVOKED": str(out), "TVM_BIND_THREADS": "0"}
        # The tests of this process must not reach into the one that it starts.
        env = {name: value for name, value in env.items() if not name.startswith(("PYTEST_", "COLUMNS"))}
        options = ["-p", "no:cacheprovider", "-q", "--hypothesis-seed=1"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--basetemp={directory}/base", *tests],
            cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=3600,
        )  # fmt: skip
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert done.returncode in (0, 1) and lines, done.stdout[-4000:] + done.stderr[-4000:]
    found: dict[str, Said] = defaultdict(Said)
    for line in lines:
        message = Message(line["what"], line["where"], line["why"], line["fix"])
        found[line["test"]].seconds = line["seconds"]
        found[line["test"]].messages.setdefault(message.rendered(), message)
    return found


def parse(text: str) -> Chosen:
    """The tests and messages of a golden file."""
    parts = re.split(r"^# (tests/.+)\n", text, flags=re.MULTILINE)[1:]
    return {
        test: [one.strip() for one in re.split(r"^(?=error: )", body, flags=re.MULTILINE) if one.strip()]
        for test, body in zip(parts[::2], parts[1::2], strict=True)
    }


def golden_text(chosen: Mapping[str, Iterable[str]]) -> str:
    return "".join(
        f"# {test}\n" + "".join(f"{message}\n\n" for message in sorted(messages))
        for test, messages in sorted(chosen.items())
        if messages
    )


def read_goldens() -> Chosen:
    return {test: messages for path in paths() for test, messages in parse(path.read_text(encoding="utf-8")).items()}


def paths() -> list[Path]:
    """The golden files of errors."""
    return sorted(path for path in GOLDEN.glob("*.txt") if path.stem not in OTHERS)


def like(message: str, said: Collection[str]) -> str:
    """The message, or where it was not said the one that is most like it."""
    if message in said:
        return message
    return next(iter(difflib.get_close_matches(message, said, 1, 0.0)), "(the test makes no error any more)")


def choose(recorded: Mapping[str, Said], wanted: Iterable[Template], known: Mapping[str, Iterable[str]]) -> Chosen:
    """Few messages that show all of the wanted texts which were provoked: those known first, then those of quick tests."""
    texts = list(wanted)
    covers = {
        (test, message): found
        for test, said in sorted(recorded.items())
        for message in sorted(said.messages)
        if (found := frozenset(one for one in texts if one.pattern.search(plain(message))))
    }
    old = {(test, message) for test, messages in known.items() for message in messages} & covers.keys()
    left, chosen = set(texts), defaultdict[str, list[str]](list)
    for candidates in (sorted(old), sorted(covers)):
        while True:
            # A test that runs anyway costs nothing more.
            cost = {test: 0.001 if test in chosen else 0.03 + recorded[test].seconds for test, _ in candidates}
            gain = {one: len(covers[one] & left) / cost[one[0]] for one in candidates}
            best = max(candidates, key=gain.__getitem__, default=None)
            if best is None or not gain[best]:
                break
            chosen[best[0]].append(best[1])
            left -= covers[best]
    return chosen


def renew() -> None:
    """Write the golden files anew, from all tests of the files that they name."""
    known = read_goldens()
    wanted = missing(shown(leave_out=paths()), templates())
    _write(_steady(record(["-n", "2", *_there(known)]), wanted, known))


def add(tests: Sequence[str]) -> None:
    """Run tests and add what they provoke of the texts that no golden file shows."""
    known = read_goldens()
    more = _steady(record(tests), missing(shown(), templates()), {})
    _write({test: [*known.get(test, ()), *more.get(test, ())] for test in {*known, *more}})


def _steady(recorded: dict[str, Said], wanted: Sequence[Template], known: Chosen) -> Chosen:
    """A choice whose tests, when they run once more, say the same."""
    chosen: Chosen = {}
    for _ in range(TRIES):
        chosen = choose(recorded, wanted, known)
        again = record(list(chosen)) if chosen else {}
        unsteady = [
            (test, one)
            for test, messages in chosen.items()
            for one in messages
            if one not in again.get(test, Said()).messages
        ]
        for test, one in unsteady:
            del recorded[test].messages[one]
        if not unsteady:
            break
    return chosen


def _write(chosen: Chosen) -> None:
    files = defaultdict[str, Chosen](dict)
    for test, messages in chosen.items():
        files[Path(test.partition("::")[0]).parts[-2]][test] = messages
    for path in paths():
        path.unlink()
    for name, part in files.items():
        (GOLDEN / f"{name}.txt").write_text(golden_text(part), encoding="utf-8")


def _there(tests: Iterable[str]) -> list[str]:
    """Those whose file is still there; pytest would refuse to run any with one that it does not find."""
    return sorted({file for test in tests if (ROOT / (file := test.partition("::")[0])).exists()})


def main(tests: Sequence[str]) -> int:
    if tests:
        add(tests)
    else:
        renew()
    lacking = missing(shown(), templates())
    print("\n".join(map(str, lacking)) + f"\n{len(lacking)} texts are in no golden file")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
