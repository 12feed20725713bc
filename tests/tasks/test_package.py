"""The package task: what a kind is given, and records from other machines that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Json, digest_bytes
from llmbuild.engine.kind import Job, no_progress
from llmbuild.engine.passing import Passer
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import InputError
from llmbuild.packages.folder import Folder
from llmbuild.tasks.package import KIND

CONFIG = b'{"model_type": "llama"}'
INPUTS = {
    "quantize[m, s]": {"params_shard_0.bin": b"weights"},
    "config[m, s]": {"mlc-chat-config.json": CONFIG, "tokenizer.json": b"{}"},
    "link[m, s, p]": {"lib.so": b"library"},
    "lower[m, s, p]": {"metadata.json": b'{"model_type": "llama"}'},
}
PLATFORM: dict[str, Json] = {"name": "p", "artifact": "so", "triple": "", "device": "llvm", "prefix": ""}
PARAMS: dict[str, Any] = {
    "kind": "server",
    "options": {},
    "members": [
        {
            "model": "m",
            "scheme": "s",
            "files": ["quantize[m, s]", "config[m, s]"],
            "libraries": [{"platform": PLATFORM, "file": "link[m, s, p]", "record": "lower[m, s, p]"}],
        }
    ],
    "archives": {},
    "sources": {},
}


def run(place: Path, inputs: dict[str, dict[str, bytes]], params: dict[str, Any]) -> dict[str, bytes]:
    """What the task puts out, by name."""
    trees, content = {}, {}
    for name, files in inputs.items():
        (place / name).mkdir()
        for path, data in files.items():
            (place / name / path).write_bytes(data)
            content[digest_bytes(data)] = data
        trees[name] = Tree.of(FileEntry(path, digest_bytes(data), len(data)) for path, data in files.items())
    out = place / "out"
    out.mkdir()
    passer = Passer(out, {name: place / name for name in inputs}, trees)
    KIND.run(
        Job(params, {name: place / name for name in inputs}, {}, out, place, no_progress, trees=trees, pass_on=passer)
    )
    assert not list(out.iterdir())
    return {name: content[passed.entry.digest] for name, passed in passer.passed.items()}


def test_a_server_is_passed_on_whole(tmp_path: Path) -> None:
    assert run(tmp_path, INPUTS, PARAMS) == {
        "m-s-MLC/mlc-chat-config.json": CONFIG,
        "m-s-MLC/params_shard_0.bin": b"weights",
        "m-s-MLC/tokenizer.json": b"{}",
        "libs/m-s-p.so": b"library",
    }


@pytest.mark.parametrize(
    ("source", "files", "what", "where"),
    [
        ("link[m, s, p]", {}, "has 0 files in the place of one", "link[m, s, p]"),
        ("link[m, s, p]", {"lib.so": b"", "other": b""}, "has 2 files in the place of one", "link[m, s, p]"),
        ("config[m, s]", {}, "is missing", "mlc-chat-config.json"),
        ("config[m, s]", {"mlc-chat-config.json": b"{"}, "cannot be read", "mlc-chat-config.json"),
        ("config[m, s]", {"mlc-chat-config.json": b"[]"}, "is not a JSON object", "mlc-chat-config.json"),
        ("lower[m, s, p]", {}, "cannot be read", "metadata.json"),
    ],
)
def test_inputs_of_another_form(tmp_path: Path, source: str, files: dict[str, bytes], what: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, {**INPUTS, source: files}, PARAMS)
    assert (caught.value.what, caught.value.where) == (what, where)


def test_a_kind_of_another_llmbuild(tmp_path: Path) -> None:
    for name in ("no_such_kind", "__init__", "../kind", ""):
        place = tmp_path / json.dumps(name).replace("/", "_")
        place.mkdir()
        with pytest.raises(InputError, match="there is no kind of package"):
            run(place, INPUTS, {**PARAMS, "kind": name})


def test_a_folder_has_each_file_once_and_nothing_outside(tmp_path: Path) -> None:
    count = 0

    def add() -> None:
        nonlocal count
        count += 1

    folder = Folder(tmp_path, Passer(tmp_path, {}, {}), add)
    folder.write_json("deep/list.json", {"b": "é", "a": [1]})
    assert (tmp_path / "deep/list.json").read_bytes() == '{\n  "b": "é",\n  "a": [\n    1\n  ]\n}\n'.encode()
    assert count == 1
    with pytest.raises(FileExistsError):
        folder.write("deep/list.json", "again")
    for name in ("../x", "/x", "a/../../x", ""):
        with pytest.raises(InputError, match="no package can have a file of this name"):
            folder.write(name, "x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "list.json"]
