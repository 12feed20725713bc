"""Directories and GGUF files on this machine, and which files of a checkpoint are needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, InputError, StoreError
from llmbuild.manifest.lock import Lock
from llmbuild.sources import observe, size
from llmbuild.sources.kind import GoneError, Source
from llmbuild.sources.select import needed_files, unread_weights
from tests.helpers.fetching import Digests, fetch_observed, fetch_source


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "tiny"
    directory.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "notes.txt"):
        (directory / name).write_text(name)
    (directory / "sub").mkdir()
    (directory / "sub" / "tokenizer.model").write_text("deeper")
    return directory


SHARDED = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]
SOURCE = Source("path", {"path": "models/tiny"})


def test_the_size_is_that_of_the_needed_files(tmp_path: Path, checkpoint: Path) -> None:
    params, hints = observe(SOURCE, tmp_path, Digests(), Lock())
    assert size(params, hints) == sum(map(len, ("config.json", "tokenizer.json", "model.safetensors")))
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert size(*observe(Source("gguf", {"path": "x.gguf"}), tmp_path, Digests(), Lock())) == 4
    (checkpoint / "config.json").unlink()
    assert size(params, hints) is None


def test_a_directory(tmp_path: Path, checkpoint: Path) -> None:
    fetched = fetch_source(SOURCE, tmp_path)
    assert fetched.files == {name: name.encode() for name in ("config.json", "tokenizer.json", "model.safetensors")}
    assert fetched.params["files"]["config.json"] == hashlib.sha256(b"config.json").hexdigest()
    assert fetched.params["source"] == {"kind": "path"}
    assert fetched.hints == {"path": str(checkpoint), "unread": "pytorch_model.bin"}
    assert fetched.reported[-1] == (42, 42, "bytes")


def test_the_key_holds_contents_and_no_path(tmp_path: Path, checkpoint: Path) -> None:
    first = fetch_source(SOURCE, tmp_path)
    checkpoint.rename(tmp_path / "moved")
    assert fetch_source(Source("path", {"path": "moved"}), tmp_path, name="again").params == first.params


def test_links_are_followed(tmp_path: Path, checkpoint: Path) -> None:
    target = tmp_path / "blob"
    (checkpoint / "config.json").rename(target)
    (checkpoint / "config.json").symlink_to(target)
    assert fetch_source(SOURCE, tmp_path).files["config.json"] == b"config.json"
    assert not (tmp_path / "out" / "config.json").is_symlink()


def test_a_gguf_file_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "B.GGUF").write_bytes(b"GGUF")
    first = fetch_source(Source("gguf", {"path": "a.gguf"}), tmp_path)
    second = fetch_source(Source("path", {"path": "folder"}), tmp_path, name="folder-out")
    assert first.files == second.files == {"model.gguf": b"GGUF"}
    assert first.params == second.params


def test_a_file_that_changes_after_planning(tmp_path: Path, checkpoint: Path) -> None:
    planned = fetch_source(SOURCE, tmp_path)
    (checkpoint / "model.safetensors").write_text("other")
    with pytest.raises(FetchError, match="changed while the build was running"):
        fetch_observed(planned.params, planned.hints, tmp_path, "later")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(FetchError, match="cannot be read"):
        fetch_observed(planned.params, planned.hints, tmp_path, "gone")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source("path", {"path": "models/tinny"}), "did you mean 'tiny'"),
        (Source("path", {"path": "models/tiny/config.json"}), "it is not a directory"),
        (Source("gguf", {"path": "models/tiny"}), "it is not a file"),
        (Source("gguf", {"path": "nowhere/x.gguf"}), "no such file"),
        (Source("path", {"path": "models"}), "neither config.json nor a .gguf file"),
    ],
)
def test_what_is_not_there(tmp_path: Path, checkpoint: Path, source: Source, said: str) -> None:
    with pytest.raises((FetchError, InputError)) as caught:
        fetch_source(source, tmp_path)
    assert said in str(caught.value)
    # What is of another kind is not what was meant.
    assert f"did you mean '{Path(source.spec['path']).name}'" not in str(caught.value)


def test_a_full_disk(tmp_path: Path, checkpoint: Path) -> None:
    planned = fetch_source(SOURCE, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").symlink_to("/dev/full")
    from llmbuild.sources import fetch

    with pytest.raises(StoreError, match="No space left"):
        fetch(planned.params, planned.hints, tmp_path / "full", tmp_path, lambda done, total, unit="": None)


NOTHING = b"{}"


def index_of(*files: str) -> bytes:
    return json.dumps(
        {"weight_map": {f"model.layers.{number}.weight": file for number, file in enumerate(files)}}
    ).encode()


def needed(names: Collection[str], source_format: str | None = None, index: bytes = NOTHING) -> list[str]:
    return needed_files(names, source_format, "here", lambda name: index)


@pytest.mark.parametrize(
    ("names", "source_format", "expected"),
    [
        (["config.json", "model.safetensors", "consolidated.safetensors"], None, ["config.json", "model.safetensors"]),
        ([*SHARDED, "model.safetensors"], None, ["config.json", "model.safetensors"]),
        (["config.json", "weights.safetensors", "pytorch_model.bin"], None, ["config.json", "pytorch_model.bin"]),
        (["config.json", "weights.safetensors", "notes.bin"], None, ["config.json", "weights.safetensors"]),
        (["config.json", "optimizer.bin", "adapter_model.bin"], None, ["config.json"]),
        (["config.json", "x.gguf"], None, ["x.gguf"]),
        (["config.json", "pytorch_model.bin", "x.gguf"], None, ["config.json", "pytorch_model.bin"]),
        (["b-00002-of-00002.gguf", "b-00001-of-00002.gguf"], None, ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"]),
        (["config.json", "pytorch_model.bin", "training_args.bin"], None, ["config.json", "pytorch_model.bin"]),
        (["config.json", "a.safetensors", "b.bin"], "huggingface-torch", ["b.bin", "config.json"]),
        (["config.json", "model.safetensors", "x.gguf"], "gguf", ["x.gguf"]),
        (["config.json", "model.safetensors"], "awq", ["config.json", "model.safetensors"]),
        (["config.json"], None, ["config.json"]),
        (
            ["README.md", "chat_template.jinja", "chat_template.json", "config.json", "other.jinja"],
            None,
            ["chat_template.jinja", "chat_template.json", "config.json"],
        ),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            None,
            ["adapter_config.json", "adapter_model.safetensors"],
        ),
        (
            ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors", "x.gguf", "training_args.bin"],
            None,
            ["adapter_config.json", "adapter_model.safetensors"],
        ),
    ],
)
def test_needed_files(names: list[str], source_format: str | None, expected: list[str]) -> None:
    assert needed(names, source_format) == expected


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("file", ["model{}-0000{}-of-00002", "weights-{}{}", "{}part {}", "anything"])
def test_the_index_names_the_needed_files(form: str, file: str) -> None:
    suffix = Path(form).suffix
    files = [file.format("", number) + suffix for number in (2, 1)]
    beside = ["config.json", f"{form}.index.json", f"consolidated{suffix}", f"model-00003-of-00003{suffix}", "x.gguf"]
    index = index_of(*files)
    assert needed([*beside, *files], None, index) == sorted({"config.json", f"{form}.index.json", *files})
    other = "model.safetensors" if form != "model.safetensors" else "pytorch_model.bin"
    both = needed([*beside, *files, other], None, index)
    assert (other in both) == (other == "model.safetensors")
    assert unread_weights([*beside, *files, other], both, None) == (f"{form}.index.json" if other in both else other)


def test_a_shard_that_is_missing() -> None:
    names = ["config.json", "model.safetensors.index.json", "b.safetensors"]
    with pytest.raises(
        InputError, match=r"index.json: shards a.safetensors and c.safetensors are missing\n[^!]*1 of 3 shards"
    ):
        needed(names, None, index_of("a.safetensors", "b.safetensors", "c.safetensors"))
    # Who leaves all the weights out means to build without them.
    assert needed(names, None, index_of("a.safetensors")) == names[:2]
    with pytest.raises(InputError, match=r"shard model-2-of-3.safetensors is missing\n"):
        needed(["config.json", "model-1-of-3.safetensors", "model-3-of-3.safetensors"])
    with pytest.raises(InputError, match=r"part x-00001-of-00002.gguf of the GGUF file is missing"):
        needed(["x-00002-of-00002.gguf"])


def test_several_gguf_files() -> None:
    for names in (["a.gguf", "b.gguf"], ["config.json", "b.gguf", "a.gguf"]):
        with pytest.raises(FetchError, match=r"a.gguf and b.gguf"):
            needed(names)
    with pytest.raises(FetchError, match=r"holds several GGUF files\n  why: 0.gguf, [^!]*4.gguf and 7 more\n"):
        needed([f"{number:x}.gguf" for number in range(12)])


@pytest.mark.parametrize("given", ["Tiny-00001-of-00003.gguf", "Tiny-00003-of-00003.gguf", ""])
def test_a_split_gguf_file(tmp_path: Path, given: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"Tiny-0000{number}-of-00003.gguf").write_bytes(b"%d" % number)
    fetched = fetch_source(Source("gguf" if given else "path", {"path": f"folder/{given}"}), tmp_path)
    assert fetched.files == {f"model-0000{number}-of-00003.gguf": b"%d" % number for number in (1, 2, 3)}
    assert fetched.params["source"] == {"kind": "gguf"}
    assert size(fetched.params, fetched.hints) == 3
    (folder / "Tiny-00002-of-00003.gguf").unlink()
    with pytest.raises(InputError, match=r"part Tiny-00002-of-00003.gguf of the GGUF file is missing"):
        fetch_source(Source("gguf" if given else "path", {"path": f"folder/{given}"}), tmp_path, name="again")


def test_a_link_to_nothing_is_explained(tmp_path: Path, checkpoint: Path) -> None:
    """A copied snapshot of a hub's cache, without the blobs that its links lead to."""

    def message() -> str:
        with pytest.raises((FetchError, InputError)) as caught:
            observe(SOURCE, tmp_path, Digests(), Lock())
        return str(caught.value)

    (checkpoint / "pytorch_model.bin").unlink()
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (checkpoint / name).unlink()
        (checkpoint / name).symlink_to(f"../../blobs/{name[:3]}")
        assert f"{name}: a file of the checkpoint is missing" in message() or name == "model.safetensors"
        assert "it is a link to '../../blobs/" in message()
    (checkpoint / "notes.txt").unlink()
    (checkpoint / "notes.txt").symlink_to("nothing")
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (checkpoint / name).unlink()
        (checkpoint / name).write_text(name)
    assert set(observe(SOURCE, tmp_path, Digests(), Lock()).params["files"]) >= {"config.json", "model.safetensors"}
    (tmp_path / "away").symlink_to("gone")
    (tmp_path / "x.gguf").symlink_to("gone.gguf")
    for source in (Source("path", {"path": "away"}), Source("gguf", {"path": "x.gguf"})):
        with pytest.raises(GoneError, match=r"it is a link to 'gone[.guf]*', and nothing is there"):
            observe(source, tmp_path, Digests(), Lock())


def test_the_cache_of_a_hub_is_explained(tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--org--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "snapshots" / "0123").mkdir(parents=True)
    with pytest.raises(InputError, match=r"in the cache of a hub, and not a checkpoint") as caught:
        observe(Source("path", {"path": "hub/models--org--name"}), tmp_path, Digests(), Lock())
    assert caught.value.fix == f"name the snapshot: {cache}/snapshots/0123"
    with pytest.raises(InputError, match=r"is the cache of a hub, and not a checkpoint"):
        observe(Source("path", {"path": "hub"}), tmp_path, Digests(), Lock())
    (tmp_path / "hub" / "models--org--other").mkdir()
    with pytest.raises(InputError, match=r"it has models--org--name and 1 other models"):
        observe(Source("path", {"path": "hub"}), tmp_path, Digests(), Lock())
    for name in ("config.json", "model.safetensors"):
        (cache / "snapshots" / "0123" / name).write_text(name)
    assert (
        len(observe(Source("path", {"path": str(cache / "snapshots/0123")}), tmp_path, Digests(), Lock()).params) == 2
    )


def test_a_name_that_is_not_utf_8(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").unlink()
    with open(os.fsencode(checkpoint) + b"/y\xff.safetensors", "w"):  # noqa: PTH123
        pass
    with pytest.raises(InputError, match="a name that cannot be kept") as caught:
        fetch_source(SOURCE, tmp_path)
    assert r"b'y\xff.safetensors' is not UTF-8" in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "x" * 300 + ".gguf"])
def test_a_path_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError, match="cannot be read") as caught:
        fetch_source(Source("gguf" if "." in name else "path", {"path": name}), tmp_path)
    assert "too long" in str(caught.value)
