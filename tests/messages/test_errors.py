"""Every error that a user can meet, as it reads at 80 and 120 columns, with and without a terminal.

golden/ has a file for each layer.  Its entries name a place in llmbuild and a test that provokes the error there; here
those tests run once more and every message is compared.  `tests.helpers.message_goldens` says how to add to them.
"""

from __future__ import annotations

import pytest

from tests.helpers import golden
from tests.helpers.message_goldens import golden_text, record
from tests.helpers.messages import GOLDEN, Template, entries, missing, shown, templates

LAYERS = sorted(path.stem for path in GOLDEN.glob("*.txt") if path.stem != "outputs")
HOW = "\n\nWrite a test that provokes it, then: python -m tests.helpers.message_goldens TEST-FILE…"


@pytest.mark.parametrize("layer", LAYERS)
def test_errors_read_as_in_the_golden_file(layer: str) -> None:
    path = GOLDEN / f"{layer}.txt"
    chosen = entries(path.read_text(encoding="utf-8"))
    golden.check(path, golden_text(chosen, record(list(dict.fromkeys(entry.test for entry in chosen)))))


def test_every_error_is_in_a_golden_file() -> None:
    lacking = [one for one in missing(shown(), templates()) if not _exempt(one)]
    assert not lacking, "\n".join(map(str, lacking)) + HOW


def test_what_is_exempt_is_still_there() -> None:
    """An exemption that the source no longer has, or that a golden file shows by now, has to go."""
    left = missing(shown(), templates())
    for file, text in EXEMPT:
        assert any(one.file.startswith(file) and one.text.startswith(text) for one in left), (file, text)


def _exempt(one: Template) -> bool:
    return any(one.file.startswith(file) and one.text.startswith(text) for file, text in EXEMPT)


EXEMPT: dict[tuple[str, str], str] = {
    (
        "engine/archive.py",
        "it does not have the members",
    ): "the checksum is right and the counts are not: a writer's bug",
    ("engine/archive.py", "its member … is too large"): "it takes an archive with a member of several gibibytes",
}
"""Texts (by the beginning of their file and of themselves) that no golden file shows, with the reason."""
