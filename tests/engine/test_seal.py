"""The seal of a store: what it did not write does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine.seal import Seal
from llmbuild.jsontext import parse_json


def test_what_was_sealed_holds_and_nothing_else(tmp_path: Path) -> None:
    seal = Seal(tmp_path / "store" / "secret")
    assert not seal.holds(b"{}")
    data = seal.put({"a": [1], "key": "ü"})
    assert parse_json(data) == {"a": [1], "key": "ü", "seal": parse_json(data)["seal"]}
    assert seal.holds(data)
    assert Seal(tmp_path / "store" / "secret").holds(data)
    for at in range(len(data)):
        assert not seal.holds(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]), at
        assert not seal.holds(data[:at])
    assert not Seal(tmp_path / "other" / "secret").holds(data)
    assert (tmp_path / "store" / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 33])
def test_a_secret_that_is_none_is_made_anew(tmp_path: Path, secret: bytes) -> None:
    (tmp_path / "secret").write_bytes(secret)
    seal = Seal(tmp_path / "secret")
    assert seal.holds(seal.put({"a": 1}))
