"""Statements of a real build of a tiny model, the command that checks them, and a cache that goes to another machine."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.upload_hub import running_upload_hub

MANIFEST = TINY_MANIFEST.replace('name = "tiny"', 'name = "tiny"\nprovenance = true')


def test_statements_and_caches_of_two_clones(tmp_path: Path) -> None:
    checkpoint = cached_checkpoint("llama-gqa")
    first = make_project(tmp_path / "a", MANIFEST, checkpoint)
    first.build()
    dist = first.snapshot()
    names = [name for name in dist if name.startswith("provenance/")]
    assert names == [
        "provenance/tiny-q4f32_1-MLC.intoto.json",
        "provenance/tiny-q4f32_1-x86_64-linux-cpu.so.intoto.json",
    ]
    statement = json.loads(dist[names[0]])
    assert [one["name"] for one in statement["subject"]] == sorted(
        name for name in dist if name.startswith("tiny-q4f32_1-MLC/")
    )
    assert str(tmp_path).encode() not in b"".join(dist[name] for name in names)

    # What is published is what was built: the model at the top, its libraries and the statements of both in folders.
    with running_upload_hub() as hub:
        hub.large, hub.part = 2000, 100_000
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HOME": str(tmp_path), "NO_PROXY": "*"}
        result = first.run("publish", "hf:org/{model}-{quantization}", env=env)
        assert result.code == 0, result.text
        files = hub.repos["org/tiny-q4f32_1"].branches["main"].files
    model = {name.removeprefix("tiny-q4f32_1-MLC/"): data for name, data in dist.items()}
    assert {name: files[name] for name in model} == model
    assert files.keys() - model.keys() == {"README.md", "SHA256SUMS", ".gitattributes"}
    assert b"| `libs/tiny-q4f32_1-x86_64-linux-cpu.so` | `x86_64-linux-cpu` |" in files["README.md"]

    result = first.run("verify", "--provenance")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("\nok ") + result.out.startswith("ok ") == 2
    # Only what is selected is looked at.
    result = first.run("verify", "nothing", "--provenance")
    assert (result.code, "no model 'nothing' in the manifest" in result.err) == (2, True)
    assert first.run("verify", "-p", "x86_64-linux-cpu", "--provenance").out.count("ok ") == 2
    lines = first.run("verify", "--provenance", "dist/libs/tiny-q4f32_1-x86_64-linux-cpu.so", "--json").out.splitlines()
    record = json.loads(lines[0])
    assert record["known"] == record["sources"] + record["steps"] > 0

    # The cache goes to another clone, which builds nothing and has the same tree, statements included.
    archive = tmp_path / "cache.tar"
    result = first.run("cache", "export", str(archive))
    assert result.code == 0, result.text
    assert result.out.startswith("exported 6 traces, ")
    second = make_project(tmp_path / "b" / "another", MANIFEST, checkpoint)
    result = second.run("cache", "import", str(archive))
    assert result.code == 0, result.text
    assert second.build() == {}
    assert second.snapshot() == dist

    # A collection of all but this project's results leaves nothing to build.
    result = second.run("cache", "gc", "--max-age", "0s", "--grace", "0s", "--json")
    assert json.loads(result.out)["traces"] == 0, result.text
    assert second.build() == {}
    (second.root / "buildfile.toml").rename(second.root / "gone.toml")
    result = second.run("cache", "gc", "--max-age", "0s", "--grace", "0s", "--json")
    assert json.loads(result.out)["traces"] == 6, result.text

    tampered = first.root / "dist" / "tiny-q4f32_1-MLC" / "params_shard_0.bin"
    data = bytearray(tampered.read_bytes())
    data[100] ^= 1
    tampered.unlink()
    tampered.write_bytes(data)
    result = first.run("verify", "--provenance", "all")
    assert result.code == 7
    assert result.err.startswith("error: dist/tiny-q4f32_1-MLC/params_shard_0.bin: ")
    first.build()
    assert first.run("verify", "--provenance").code == 0

    # Without the key the statements go, and only they.
    first.write(TINY_MANIFEST)
    first.build()
    assert first.snapshot() == {name: data for name, data in dist.items() if name not in names}
    result = first.run("verify", "--provenance")
    assert result.code == 7
    assert "there is no statement of where this came from" in " ".join(result.err.split())
    first.build("--provenance")
    assert first.snapshot() == dist


def test_a_manifest_with_nothing_built(tmp_path: Path) -> None:
    project = ProjectDir(tmp_path / "project", tmp_path / "store")
    project.root.mkdir()
    project.write(MANIFEST)
    result = project.run("verify", "--provenance")
    assert result.code == 2
    assert "nothing is built yet" in result.err
    result = project.run("verify", "--provenance", "dist/libs/x.so")
    assert result.code == 2
    assert "there is no statement of where this came from" in " ".join(result.err.split())
