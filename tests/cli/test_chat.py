"""`llmbuild chat`: text that is none."""

from __future__ import annotations

import argparse
import io
from typing import cast

import pytest

from llmbuild.cli.chat import _converse
from llmbuild.errors import InputError
from llmbuild.runtime.chat import Chat
from llmbuild.runtime.sampling import Sampling


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_standard_input_that_is_not_utf_8(errors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\nh\xfc\n"), "utf-8", errors=errors))

    def start() -> Chat:
        # Nothing is asked of it.
        return cast(Chat, None)

    with pytest.raises(InputError, match="standard input is not UTF-8"):
        _converse(start, Sampling(), argparse.Namespace())
