"""Archives that no honest tool made: refused with one message, and never larger than what was locked."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, LlmbuildError
from llmbuild.sources import archive
from llmbuild.sources.archive import unpack

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 5000, "README.md": b"no"}


def tar(mode: str, layout: int = tarfile.PAX_FORMAT, files: dict[str, bytes] = FILES) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=layout) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(method: int = zipfile.ZIP_DEFLATED, files: dict[str, bytes] = FILES) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def unpacked(root: Path, form: str, data: bytes, sizes: dict[str, int] | None = None) -> dict[str, bytes]:
    (root / "archive").write_bytes(data)
    out = root / "out"
    out.mkdir(exist_ok=True)
    try:
        unpack(root / "archive", form, None, out, "https://host/model", lambda _: None, sizes)
        return {path.name: path.read_bytes() for path in out.iterdir()}
    finally:
        for path in out.iterdir():
            path.unlink()


@pytest.mark.parametrize(("form", "data"), [("tar", tar("w:gz")), ("zip", zipped())])
def test_more_than_was_locked_is_not_unpacked(tmp_path: Path, form: str, data: bytes) -> None:
    sizes = {"config.json": 2, "model.safetensors": 5000}
    assert len(unpacked(tmp_path, form, data, sizes)) == 2
    with pytest.raises(FetchError, match=r"'model\.safetensors' in the archive is too large") as caught:
        unpacked(tmp_path, form, data, {**sizes, "model.safetensors": 4999})
    assert "more than 4999 bytes" in str(caught.value)


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_an_index_in_an_archive_names_its_files(tmp_path: Path, form: str) -> None:
    wanted = {
        "m/config.json": b"{}",
        "m/model.safetensors.index.json": b'{"weight_map": {"a": "second.safetensors", "b": "first.safetensors"}}',
        "m/first.safetensors": b"1",
        "m/second.safetensors": b"2",
    }
    files = {**wanted, "m/consolidated.safetensors": b"all", "m/pytorch_model.bin": b"old"}
    data = tar("w:gz", files=files) if form == "tar" else zipped(files=files)
    assert unpacked(tmp_path, form, data) == {name.removeprefix("m/"): content for name, content in wanted.items()}


def test_an_archive_leaves_place_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "free_space", lambda _, reserve: 4000)
    with pytest.raises(FetchError, match="more than 4000 bytes"):
        unpacked(tmp_path, "zip", zipped())


@pytest.mark.parametrize(("form", "data"), [("tar", tar("w")), ("zip", zipped())])
def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, data: bytes) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 2)
    with pytest.raises(FetchError, match="too many files"):
        unpacked(tmp_path, form, data)


def test_a_header_that_is_larger_than_any_name(tmp_path: Path) -> None:
    data = tar("w:gz", tarfile.GNU_FORMAT, {**FILES, "x" * (2 << 20): b""})
    with pytest.raises(FetchError, match="a header of 2097153 bytes"):
        unpacked(tmp_path, "tar", data)


@pytest.mark.parametrize("name", [b"", b"config\xff"])
def test_a_name_that_a_zip_cannot_have(tmp_path: Path, name: bytes) -> None:
    data = zipped(files={**FILES, "\u00e9" * 3 if name else "?": b""})
    data = data.replace("\u00e9".encode() * 3, name[-6:].ljust(6, b"\xff")) if name else data
    if not name:
        # The central directory's entry, with a name of no bytes.
        at = data.rindex(b"PK\x01\x02")
        data = data[: at + 28] + b"\0\0" + data[at + 30 : at + 46] + data[at + 47 :]
    with pytest.raises(FetchError):
        unpacked(tmp_path, "zip", data)


SEEDS = [
    ("tar", tar("w")),
    ("tar", tar("w", tarfile.GNU_FORMAT)),
    ("tar", tar("w:xz")),
    ("tar", tar("w:gz")),
    ("zip", zipped()),
    ("zip", zipped(zipfile.ZIP_STORED)),
]


@pytest.mark.parametrize("seed", range(6))
def test_changed_bytes(tmp_path: Path, seed: int) -> None:
    """Whatever is changed, the checkpoint comes out or one of our own errors does."""
    chance = random.Random(seed)
    form, right = SEEDS[seed]
    for _ in range(150):
        data = bytearray(right)
        for _ in range(chance.choice([1, 2, 8])):
            at = chance.randrange(len(data))
            data[at : at + chance.choice([0, 1, 4])] = chance.choice([b"\xff", b"\0\0", b"9" * 12, b"", b"\x7f"])
        try:
            unpacked(tmp_path, form, bytes(data))
        except LlmbuildError as error:
            assert "https://host/model" in str(error)
