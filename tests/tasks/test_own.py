"""A task has the text of its architecture, and it is the one of its key."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.errors import InputError
from llmbuild.tasks.own import ARCHITECTURE, architecture_in

TEXT = (
    "from dataclasses import replace\nfrom llmbuild.models.families import llama\n"
    'FAMILY = replace(llama.FAMILY, model_type="mine")\n'
)
GIVEN = {ARCHITECTURE: {"name": "mine", "sha256": digest_bytes(TEXT.encode())}}


def test_the_family_is_that_of_the_text() -> None:
    assert architecture_in({}, {}) is architecture_in({ARCHITECTURE: None}, {ARCHITECTURE: TEXT}) is None
    found = architecture_in(GIVEN, {ARCHITECTURE: TEXT})
    assert found is not None and found.model_type == "mine"


@pytest.mark.parametrize("hints", [{}, {ARCHITECTURE: TEXT + "#"}, {ARCHITECTURE: ["x"]}])
def test_another_text_does_not_run(hints: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the content of the architecture is not there"):
        architecture_in(GIVEN, hints)
