"""Garbage is collected again after a lowering."""

from __future__ import annotations

import gc

import pytest

from llmbuild.compiler.collection import uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ValueError, match="wrong"), uncollected():
            assert not gc.isenabled()
            raise ValueError("wrong")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
