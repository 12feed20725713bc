"""How errors read, to the character, at 80 and 120 columns."""

from __future__ import annotations

from textwrap import dedent

import pytest

from llmbuild.errors import MultiError, UsageError, Where
from llmbuild.report.errors import render_error, render_internal_error
from llmbuild.report.style import Style

ERROR = UsageError(
    "unknown key 'quantisations' in a build entry of the manifest",
    where=Where("buildfile.toml", 12, "build[0].quantisations"),
    why="a build entry has the keys models, quantizations, platforms, exclude and metadata",
    fix="did you mean 'quantizations'?",
)


def test_an_error_at_80_columns() -> None:
    assert render_error(ERROR, Style(80)) + "\n" == dedent(
        """\
        error: buildfile.toml:12: build[0].quantisations: unknown key 'quantisations' in
          a build entry of the manifest
          why: a build entry has the keys models, quantizations, platforms, exclude and
               metadata
          fix: did you mean 'quantizations'?
        """
    )


def test_an_error_at_120_columns() -> None:
    assert render_error(ERROR, Style(120)) + "\n" == dedent(
        """\
        error: buildfile.toml:12: build[0].quantisations: unknown key 'quantisations' in a build entry of the manifest
          why: a build entry has the keys models, quantizations, platforms, exclude and metadata
          fix: did you mean 'quantizations'?
        """
    )


def test_several_errors_follow_one_another() -> None:
    text = render_error(MultiError([UsageError("first", where="a.toml:1"), UsageError("second")]), Style(80))
    assert text == "error: a.toml:1: first\nerror: second\n2 errors"


def test_a_long_list_is_known_after_the_first_error() -> None:
    known = "one of: " + ", ".join(f"template{number}" for number in range(20))
    errors = [UsageError("first", fix=known), UsageError("second", fix=known), UsageError("third", fix="do it")]
    text = render_error(MultiError(errors), Style(1000))
    assert text == f"error: first\n  fix: {known}\nerror: second\n  fix: as above\nerror: third\n  fix: do it\n3 errors"


@pytest.mark.parametrize("what", [1, 4, 60])
@pytest.mark.parametrize("why", [0, 1, 4, 60])
@pytest.mark.parametrize("fix", [0, 1, 12, 60])
def test_no_error_has_more_than_25_lines(what: int, why: int, fix: int) -> None:
    parts = [
        "\n".join(f"{name}{number}" for number in range(count)) for name, count in (("a", what), ("b", why), ("c", fix))
    ]
    text = render_error(UsageError(parts[0], why=parts[1] or None, fix=parts[2] or None), Style(80))
    lines = text.split("\n")
    cut = [line for line in lines if " more lines" in line]
    hidden = sum(int(line.split()[2]) for line in cut)
    assert len(lines) == min(25, len(lines)) and len(lines) - len(cut) + hidden == what + why + fix
    assert (len(cut) > 0) is (what + why + fix > 25)


def test_a_bug_is_one_line() -> None:
    text = render_internal_error(KeyError("x\ny"), "/tmp/crash.log", Style(80))
    assert text == "internal error: KeyError: 'x\\ny' (a bug in llmbuild; the traceback is in /tmp/crash.log)"


def test_a_long_path_stays_beside_error() -> None:
    path = "/" + "long/" * 20
    assert render_error(UsageError("is wrong", where=path), Style(80)) == f"error: {path}:\n  is wrong"


def test_colour() -> None:
    assert render_error(UsageError("no"), Style(80, color=True)) == "\x1b[31merror:\x1b[0m no"
