"""Files of the user: what is read of them is what was hashed, or an error."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llmbuild.checkpoints import files, pieces
from llmbuild.checkpoints.files import WeightFile
from llmbuild.checkpoints.lora import MergedCheckpoint, Pair
from llmbuild.checkpoints.pieces import ChangedError, Pieces, PiecesReader, digest_pieces
from llmbuild.errors import ExitCode
from llmbuild.models.open import open_checkpoint, read_metadata
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.gguf_files import make_gguf

PIECE = 64


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", PIECE)
    monkeypatch.setattr(pieces, "PIECE", PIECE)


def pieces_of(path: Path) -> Pieces:
    with path.open("rb", buffering=0) as file:
        digest, size, digests = digest_pieces(file, lambda _count: None)
    return Pieces(path, digest, size, digests)


def edit_mapped(path: Path, offset: int) -> None:
    """Change a byte through a mapping, and leave the file's times as they were."""
    status = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[offset] ^= 1
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@given(size=st.integers(0, 5 * PIECE), reads=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_reads_give_what_is_there(size: int, reads: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "weights"
        data = os.urandom(size)
        path.write_bytes(data)
        known = pieces_of(path)
        assert known.size == size
        assert len(known.digests) == 32 * -(-size // PIECE)
        file = WeightFile(path, {path: known})
        for offset, count in reads:
            if offset + count <= size:
                assert file.read_bytes(offset, count) == data[offset : offset + count]
                assert file.read_array(offset, (count,), "uint8").tobytes() == data[offset : offset + count]
        file.close()
        with io.BufferedReader(PiecesReader(known)) as reader:
            assert reader.read() == data


def test_every_byte_of_what_is_read_counts(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(3 * PIECE))
    file = WeightFile(path, {path: pieces_of(path)})
    edit_mapped(path, PIECE + 10)
    assert len(file.read_bytes(0, PIECE)) == PIECE
    with pytest.raises(ChangedError, match="changed while the build was running") as caught:
        file.read_bytes(PIECE, 10)  # Not the changed byte itself, but its piece.
    assert caught.value.exit_code == ExitCode.FETCH
    assert caught.value.where == str(path)
    assert caught.value.why == "bytes 64 to 128 are not what they were"
    with pytest.raises(ChangedError):
        file.read_array(0, (3 * PIECE,), "uint8")
    with pytest.raises(ChangedError), PiecesReader(file._pieces) as reader:
        reader.readall()
    file.close()


def test_a_file_that_is_cut_off_or_gone(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3 * PIECE))
    known = pieces_of(path)
    file = WeightFile(path, {path: known})
    os.truncate(path, PIECE + 1)
    with pytest.raises(ChangedError, match="it ends before"):
        file.read_bytes(PIECE, 2)
    file.close()
    with pytest.raises(ChangedError, match="it had 192 bytes, now it has 65"):
        WeightFile(path, {path: known})
    path.unlink()
    with pytest.raises(ChangedError, match="No such file"):
        WeightFile(path, {path: known})


def gguf(directory: Path) -> Path:
    return make_gguf(directory / "model.gguf", "llama3")


def torch(_directory: Path) -> Path:
    return cached_checkpoint("llama-gqa", format="bin", dtype="float16")


def sharded(_directory: Path) -> Path:
    return cached_checkpoint("llama-gqa", shards=3)


@pytest.mark.parametrize("make", [gguf, torch, sharded])
def test_each_format_reads_the_same_and_nothing_beside_it(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path)
    weights = [source] if source.is_file() else sorted(source.glob("*.safetensors")) + sorted(source.glob("*.bin"))
    checks = {path: pieces_of(path) for path in weights}
    with open_checkpoint(source) as plain, open_checkpoint(source, checks=checks) as checked:
        assert list(plain.tensors) == list(checked.tensors)
        for name in plain.tensors:
            assert np.array_equal(plain.read(name).view(np.uint8), checked.read(name).view(np.uint8))
    # With digests of other bytes nothing at all is to be had: no header, no directory, no metadata.
    wrong = {path: Pieces(path, one.digest, one.size, bytes(len(one.digests))) for path, one in checks.items()}
    with pytest.raises(ChangedError):
        open_checkpoint(source, checks=wrong)
    if source.is_file():
        with pytest.raises(ChangedError):
            read_metadata(source, checks=wrong)


def test_an_adapter_is_read_as_a_checkpoint_is(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter_model.safetensors"
    save_file({"base_model.model.model.norm.weight": np.ones(128, np.float32)}, adapter)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 8}')
    known = pieces_of(adapter)
    source = cached_checkpoint("llama-gqa")
    pair = Pair("model.embed_tokens.weight", "lm_head.weight", tied=False)
    with MergedCheckpoint(open_checkpoint(source), tmp_path, pair, {adapter: known}) as merged:
        assert merged.read("model.norm.weight").tolist() == [1.0] * 128
        edit_mapped(adapter, adapter.stat().st_size - 1)
        with pytest.raises(ChangedError):
            merged.read("model.norm.weight")
