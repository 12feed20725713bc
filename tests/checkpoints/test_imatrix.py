"""Importance matrices of llama.cpp in both of their forms, whole and damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from llmbuild.checkpoints.imatrix import read_imatrix
from llmbuild.errors import InputError
from tests.helpers.imatrix import write_entries, write_gguf

SQUARES = {
    "blk.0.attn_q.weight": np.arange(1, 65, dtype=np.float32),
    "blk.0.ffn_down.weight": np.ones(96, np.float32),
}


@pytest.mark.parametrize("write", [write_gguf, write_entries])
def test_both_forms_have_the_mean_squares(write: object, tmp_path: Path) -> None:
    path = tmp_path / "imatrix"
    write(path, SQUARES, 7)  # type: ignore[operator]
    found = read_imatrix(path)
    assert found.keys() == SQUARES.keys()
    for name, values in SQUARES.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_a_gguf_file_of_a_model_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, SQUARES, 7, kind="model")
    with pytest.raises(InputError, match="importance matrix") as caught:
        read_imatrix(path)
    assert "'model' and not 'imatrix'" in (caught.value.why or "")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends too early"),
        (struct.pack("<i", -1), "-1 entries"),
        (struct.pack("<i", 0), "no weights"),
        (struct.pack("<ii", 1, 1 << 30), "1073741824 bytes"),
        (struct.pack("<ii1sii", 1, 1, b"a", 1, 1 << 30), "1073741824 inputs"),
        (struct.pack("<ii1sii", 1, 1, b"a", 1, 9), "9 inputs"),
        (struct.pack("<ii1siif", 1, 1, b"a", 1, 1, float("nan")), "no mean squares"),
        (struct.pack("<ii1siif", 1, 1, b"a", 1, 1, -1.0), "no mean squares"),
    ],
)
def test_what_is_no_importance_matrix_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_imatrix(path)
    assert why in (caught.value.why or "")
