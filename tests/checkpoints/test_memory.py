"""Memory stays in proportion to what must be parsed, whatever a file holds: each reader in a process of its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

MEBIBYTE = 1 << 20
SIZE = 4 * MEBIBYTE
FREE = 24 * MEBIBYTE
"""What a reader may need beyond ten times the file: its modules, and buffers of a mebibyte."""

MEASURE = """
import sys
from pathlib import Path
from llmbuild.errors import LlmbuildError

def memory():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

{imports}
path = Path(sys.argv[1])
before = memory()
try:
    {call}
    outcome = "read"
except LlmbuildError as error:
    outcome = "refused"
print(outcome, memory() - before)
"""
JSON = ("from llmbuild.checkpoints.files import read_json", "read_json(path, 'config.json')")
TOKENIZER = (
    "from llmbuild.conversation.tokenizer_info import active_vocab_size",
    "active_vocab_size({'tokenizer.json': path.read_bytes()})",
)
PIECES = (
    "from llmbuild.conversation.sentencepiece_model import read_sentencepiece",
    "read_sentencepiece(path.read_bytes())",
)
SAFETENSORS = (
    "from llmbuild.checkpoints.safetensors import SafetensorsFile",
    "SafetensorsFile(path)",
)
GGUF = ("from llmbuild.checkpoints.gguf import GgufFile", "GgufFile(path)")
TORCH = ("import zipfile; from llmbuild.checkpoints.torch_pickle import TorchFile", "TorchFile(path)")
TOML = ("from llmbuild.tomlfile import read_toml", "read_toml(path)")


def repeated(start: bytes, part: bytes, end: bytes) -> bytes:
    return start + part * ((SIZE - len(start) - len(end)) // len(part)) + end


def header(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def entries() -> bytes:
    """A plain header: what most files look like."""
    one = {"dtype": "BF16", "shape": [1], "data_offsets": [0, 0]}
    table = {
        f"model.layers.{number}.self_attn.q_proj.weight": one | {"data_offsets": [2 * number, 2 * number + 2]}
        for number in range(30_000)
    }
    return header(json.dumps(table, separators=(",", ":")).encode()) + bytes(60_000)


def numbers(kind: int, width: int) -> bytes:
    """A GGUF file with one array of small numbers."""
    count = SIZE // width
    name = b"tokenizer.ggml.token_type"
    pair = struct.pack("<Q", len(name)) + name + struct.pack("<IIQ", 9, kind, count)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair + b"\x90" * (count * width)


def pairs() -> bytes:
    count = SIZE // 17
    data = b"".join(
        struct.pack("<Q", 4) + b"%04x" % (number & 0xFFFF) + struct.pack("<IB", 7, 1) for number in range(count)
    )
    return b"GGUF" + struct.pack("<IQQ", 3, 0, count) + data


def texts() -> bytes:
    count = SIZE // 10
    pair = struct.pack("<Q", 1) + b"t" + struct.pack("<IIQ", 9, 8, count)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair + (struct.pack("<Q", 2) + b"ab") * count


def vocabulary() -> bytes:
    """A plain tokenizer.json: pieces that begin with the sign of a space, and merges."""
    vocab = {f"\u0120word{number}": number for number in range(120_000)}
    merges = [f"\u0120wo rd{number}" for number in range(60_000)]
    return json.dumps({"model": {"vocab": vocab, "merges": merges}}, ensure_ascii=False).encode()


FILES: dict[str, tuple[tuple[str, str], Callable[[], bytes]]] = {
    "json of lists": (JSON, lambda: repeated(b'{"a":[', b"[],", b"0]}")),
    "json of objects": (JSON, lambda: repeated(b'{"a":[', b'{"a":1},', b"0]}")),
    "json of numbers": (JSON, lambda: repeated(b'{"a":[', b"999,", b"0]}")),
    "json of one text": (JSON, lambda: repeated(b'{"a":"', "\N{GRINNING FACE}".encode(), b'"}')),
    "tokenizer.json of lists": (TOKENIZER, lambda: repeated(b'{"model":[', b"[],", b"0]}")),
    "tokenizer.json": (TOKENIZER, vocabulary),
    "tokenizer.model of short pieces": (PIECES, lambda: repeated(b"", b"\x0a\x04\x0a\x02ab", b"")),
    "tokenizer.model of empty pieces": (PIECES, lambda: repeated(b"", b"\x0a\x00", b"")),
    "safetensors of lists": (SAFETENSORS, lambda: header(repeated(b'{"a":[', b"[],", b"0]}"))),
    "safetensors of tensors": (SAFETENSORS, entries),
    "gguf of bytes": (GGUF, lambda: numbers(1, 1)),
    "gguf of flags": (GGUF, lambda: numbers(7, 1)),
    "gguf of floats": (GGUF, lambda: numbers(6, 4)),
    "gguf of pairs": (GGUF, pairs),
    "gguf of texts": (GGUF, texts),
    "toml of lists": (TOML, lambda: repeated(b"a = [", b"{},", b"]")),
}
PICKLES = {"lists": b"]", "dictionaries": b"}", "memo": b"N\x94", "texts": b"\x8c\x02ab"}


def growth(path: Path, reader: tuple[str, str]) -> int:
    imports, call = reader
    code = MEASURE.format(imports=imports, call=call)
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", FILES)
def test_a_file_takes_less_than_ten_times_its_size(tmp_path: Path, name: str) -> None:
    reader, make = FILES[name]
    data = make()
    (tmp_path / "file").write_bytes(data)
    assert growth(tmp_path / "file", reader) < 10 * len(data) + FREE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_takes_less_than_ten_times_its_size(tmp_path: Path, name: str) -> None:
    data = repeated(b"\x80\x04", PICKLES[name], b".")
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("m/data.pkl", data)
    assert growth(tmp_path / "file", TORCH) < 10 * len(data) + FREE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_directory_of_an_archive_is_bounded(tmp_path: Path) -> None:
    """Read as it is, an archive of many entries takes twenty times its directory."""
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for number in range(60_000):
            archive.writestr(f"m/data/{number:050}", b"")
    directory = 60_000 * 110
    assert growth(tmp_path / "file", TORCH) < directory + FREE
