"""Regular expressions out of downloaded files, with Python's meaning and an end to their time.

Python cannot interrupt a match, and a short expression can take for ever to fail.  So expressions run in a process of their
own, which the kernel ends when it has computed for `SECONDS`.  Expressions of letters, digits, points and dashes, as most
are, cannot take long: where all are such and there are not too many, no process is started.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from llmbuild.errors import ToolchainError

SECONDS = 2.0
"""Computing time of all expressions on all names together.  Waiting for a busy machine does not count."""
WALL_SECONDS = 60.0
"""Even a machine that is very busy has computed for two seconds by then."""
MOST_LETTERS = 10_000
"""Of one expression."""
MOST_COMPARED = 10_000_000
"""Letters of names times expressions that are compared without a process: less than a second's work."""

_PLAIN = re.compile(r"(?:[\w.-]|\\\.)*", re.ASCII)

_CHILD = r"""
import json, re, signal, sys
task = json.load(sys.stdin)
signal.setitimer(signal.ITIMER_VIRTUAL, task["seconds"])
for patterns in task["patterns"]:
    compiled, found = [None] * len(patterns), []
    for name in task["names"]:
        for index, pattern in enumerate(patterns):
            if compiled[index] is None:
                try:
                    compiled[index] = re.compile(pattern)
                except (re.error, OverflowError, RecursionError, ValueError) as error:
                    print(json.dumps({"bad": index, "why": str(error)}))
                    sys.exit()
            if compiled[index].fullmatch(name):
                found.append(index)
                break
        else:
            found.append(None)
    print(json.dumps({"found": found}), flush=True)
"""
"""Nothing handles the timer's signal, so that the kernel ends the process, also in the middle of a match."""


class PatternError(Exception):
    """Expressions that cannot be used: `key` is theirs, the text is the reason."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def match_ends(patterns: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, list[int | None]]:
    """By each key and for each name the index of the key's first pattern that matches the name or its end after a point.

    Raises PatternError when an expression is not valid, or when all of them take longer than `SECONDS` together, and
    ToolchainError when no process can be started.
    """
    for key, given in patterns.items():
        longest = max(map(len, given), default=0)
        if longest > MOST_LETTERS:
            raise PatternError(key, f"a regular expression has {longest} letters, and {MOST_LETTERS} are the most")
    ends = {key: [rf"(?:.*\.)?(?:{pattern})" for pattern in given] for key, given in patterns.items()}
    work = sum(map(len, names)) * sum(map(len, ends.values()))
    if work <= MOST_COMPARED and all(_PLAIN.fullmatch(pattern) for given in patterns.values() for pattern in given):
        return {key: _match(given, names) for key, given in ends.items()}
    return _match_apart(patterns, ends, names)


def _match(patterns: Sequence[str], names: Sequence[str]) -> list[int | None]:
    compiled = [re.compile(pattern) for pattern in patterns]
    return [next((index for index, one in enumerate(compiled) if one.fullmatch(name)), None) for name in names]


def _match_apart(
    patterns: Mapping[str, Sequence[str]], ends: Mapping[str, Sequence[str]], names: Sequence[str]
) -> dict[str, list[int | None]]:
    task = json.dumps({"patterns": list(ends.values()), "names": names, "seconds": SECONDS})
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    try:
        done = subprocess.run(command, check=False, input=task, capture_output=True, text=True, timeout=WALL_SECONDS)
        written, ended, words = done.stdout, done.returncode < 0, done.stderr
    except subprocess.TimeoutExpired as error:
        written, ended, words = (error.stdout or b"").decode(), True, ""
    except OSError as error:
        raise ToolchainError(
            "no process can be started for an adapter's regular expressions", where=sys.executable, why=error.strerror
        ) from error
    answers = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]
    found: dict[str, list[int | None]] = {}
    for key, answer in zip(patterns, answers, strict=False):
        if "bad" in answer:
            bad = patterns[key][answer["bad"]]
            raise PatternError(key, f"{bad[:200]!r} is not a regular expression: {answer['why']}")
        found[key] = answer["found"]
    unfinished = [key for key in patterns if key not in found]
    if unfinished:
        # Where a key has no expressions the next one took the time.
        key = next((key for key in unfinished if patterns[key]), unfinished[0])
        took = f"its regular expressions take more than {SECONDS:g} seconds on the names of the modules"
        raise PatternError(key, took if ended else f"its regular expressions cannot be used: {words[-200:].strip()}")
    return found
