"""Checkpoints and machines that are wrong in different ways: one clear message, the documented exit code, nothing changed.

Wrong manifests have a table of their own in tests/manifest.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmbuild.report.errors import MOST_LINES
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project


@dataclass(frozen=True)
class Case:
    """How to break a sound checkpoint, and what the message must then say."""

    name: str
    damage: Callable[[Path], None]
    code: int
    says: tuple[str, ...]
    format: str = "safetensors"
    manifest: str = TINY_MANIFEST


def edit_config(**values: object) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = directory / "config.json"
        config = json.loads(path.read_text())
        config.update(values)
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))

    return damage


def truncate(name: str, size: int) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = directory / name
        path.write_bytes(path.read_bytes()[:size])

    return damage


def overwrite(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(data)

    return damage


def remove(*names: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return damage


def rewrite_tensors(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return damage


def drop_tensor(tensors: dict[str, object]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def add_tensor(tensors: dict[str, object]) -> None:
    import numpy as np

    tensors["model.layers.0.mystery.weight"] = np.zeros((2, 2), dtype="float32")


def wrong_shape(tensors: dict[str, object]) -> None:
    import numpy as np

    tensors["model.layers.0.self_attn.o_proj.weight"] = np.zeros((128, 64), dtype="float32")


def not_a_number(tensors: dict[str, object]) -> None:
    tensors["model.layers.0.mlp.down_proj.weight"][3, 5] = float("nan")  # type: ignore[index]


def infinite(tensors: dict[str, object]) -> None:
    tensors["model.embed_tokens.weight"][0, 0] = float("inf")  # type: ignore[index]


def huge_header(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 50) + path.read_bytes()[8:])


def offsets_beyond_the_file(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    start, end = header[last]["data_offsets"]
    header[last]["data_offsets"] = [start + 1_000_000, end + 1_000_000]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        import os

        return (os.system, ("touch pwned",))


def malicious_pickle(directory: Path) -> None:
    path = directory / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Evil()}))
        archive.writestr("archive/version", "3\n")


def to_gguf(data: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        for path in directory.iterdir():
            path.unlink()
        (directory / "model.gguf").write_bytes(data)

    return damage


def duplicate_token(directory: Path) -> None:
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 300})
    path.write_text(json.dumps(tokenizer))


def broken_adapter(directory: Path) -> None:
    adapter = directory.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": "pissa"})
    )
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")


WITH_ADAPTER = TINY_MANIFEST.replace('source = "checkpoint"', 'source = "checkpoint"\nadapter = "adapter"')

CASES = [
    Case("no config.json", remove("config.json"), 3, ("config.json",)),
    Case("config.json is not JSON", overwrite("config.json", b"{"), 3, ("config.json", "JSON")),
    Case("config.json is a list", overwrite("config.json", b"[]"), 3, ("config.json",)),
    Case(
        "unsupported architecture",
        edit_config(model_type="mamba", architectures=["MambaForCausalLM"]),
        3,
        ("MambaForCausalLM", "docs/models.md"),
    ),
    Case(
        "misspelt architecture", edit_config(model_type="lama", architectures=...), 3, ("lama", "did you mean 'llama'")
    ),
    Case("missing hidden_size", edit_config(hidden_size=...), 3, ("hidden_size",)),
    Case("heads do not divide", edit_config(num_attention_heads=3), 3, ("hidden_size", "3 attention heads")),
    Case("unsupported rope", edit_config(rope_scaling={"rope_type": "mrope", "factor": 4.0}), 3, ("mrope",)),
    Case("negative size", edit_config(intermediate_size=-4), 3, ("intermediate_size",)),
    Case("size is a string", edit_config(num_hidden_layers="two"), 3, ("num_hidden_layers",)),
    Case("no weights", remove("model.safetensors"), 3, ("weights",)),
    Case("empty weights file", truncate("model.safetensors", 0), 3, ("model.safetensors",)),
    Case("truncated safetensors", truncate("model.safetensors", -1000), 3, ("model.safetensors",)),
    Case("truncated header", truncate("model.safetensors", 100), 3, ("model.safetensors", "100 bytes")),
    Case("header larger than the file", huge_header, 3, ("model.safetensors", "header")),
    Case("offsets beyond the file", offsets_beyond_the_file, 3, ("model.safetensors",)),
    Case("missing tensor", rewrite_tensors(drop_tensor), 3, ("model.layers.1.mlp.up_proj.weight",)),
    Case("unknown tensor", rewrite_tensors(add_tensor), 3, ("model.layers.0.mystery.weight",)),
    Case("shape mismatch", rewrite_tensors(wrong_shape), 3, ("model.layers.0.self_attn.o_proj.weight", "64")),
    Case("NaN", rewrite_tensors(not_a_number), 3, ("mlp.down_proj", "NaN")),
    Case("infinity", rewrite_tensors(infinite), 3, ("model.embed_tokens",)),
    Case("no tokenizer", remove("tokenizer.json"), 3, ("tokenizer",)),
    Case("tokenizer is not JSON", overwrite("tokenizer.json", b"nope"), 3, ("tokenizer.json",)),
    Case("duplicate added token", duplicate_token, 3, ("tokenizer.json", "<pad>")),
    Case(
        "generation_config.json is not JSON",
        overwrite("generation_config.json", b"{,}"),
        3,
        ("generation_config.json",),
    ),
    Case("malicious pickle", malicious_pickle, 3, ("pytorch_model.bin", "system"), format="bin"),
    Case("pickle that is not one", overwrite("pytorch_model.bin", b"hello"), 3, ("pytorch_model.bin",), format="bin"),
    Case("GGUF with absurd counts", to_gguf(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)), 3, ("model.gguf",)),
    Case("GGUF of an unknown version", to_gguf(b"GGUF" + struct.pack("<IQQ", 99, 1, 1)), 3, ("model.gguf", "version")),
    Case("GGUF without the magic", to_gguf(b"FUGG" + bytes(64)), 3, ("model.gguf",)),
    Case("truncated GGUF", to_gguf(b"GGUF" + struct.pack("<IQ", 3, 1)), 3, ("model.gguf",)),
    Case(
        "adapter that cannot be merged",
        broken_adapter,
        3,
        ("adapter_config.json", "init_lora_weights", "merge_and_unload"),
        manifest=WITH_ADAPTER,
    ),
    Case("no checkpoint at all", shutil.rmtree, 4, ("checkpoint",)),
]


def assert_sound(project: ProjectDir) -> None:
    """Every blob of the store has the bytes that its name says, and no scratch is left."""
    blobs = project.store / "blobs"
    for path in blobs.rglob("*") if blobs.is_dir() else ():
        if path.is_file():
            name = (path.parent.name + path.name)[-64:] if len(path.name) < 64 else path.name
            assert hashlib.sha256(path.read_bytes()).hexdigest() == name
    scratch = project.store / "scratch"
    assert not scratch.is_dir() or list(scratch.iterdir()) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_checkpoint_gives_one_message_and_changes_nothing(case: Case, tmp_path: Path) -> None:
    project = make_project(tmp_path, case.manifest, cached_checkpoint("llama-gqa", format=case.format))
    kept = project.root / "dist/libs/mine.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("a file that llmbuild did not write")
    case.damage(project.root / "checkpoint")
    result = project.run("build", "--jobs", "1")
    assert result.code == case.code, result.text
    assert "Traceback" not in result.text
    # Long lines are wrapped at the terminal's width.
    said = " ".join(result.text.split())
    assert said.count("error: ") == 1, result.text
    message = result.text[result.text.index("error: ") :].partition("\n  to run it alone")[0]
    assert message.count("\n") < MOST_LINES, result.text
    for phrase in case.says:
        assert phrase in said, result.text
    assert project.snapshot() == {"libs/mine.txt": kept.read_bytes()}
    assert not (project.root / "pwned").exists()
    assert_sound(project)


def test_a_missing_compiler_is_said_before_anything_is_built(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    # A named one: without any, a linker of the ziglang package would do.
    result = project.run("build", env={"CC": "no-such-compiler"})
    assert result.code == 5, result.text
    assert "the C compiler 'no-such-compiler' is not on" in result.text
    assert "Traceback" not in result.text
    assert not (project.root / "dist").exists()
    traces = project.store / "traces"
    assert not traces.exists() or not any(path.is_file() for path in traces.rglob("*"))


def test_a_full_disk_is_said_and_the_next_build_completes(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    mount = tmp_path / "small"
    mount.mkdir()
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine does not let a test mount a file system")
    script = (
        f"mount -t tmpfs -o size=1m none '{mount}' && cd '{project.root}' && "
        f"LLMBUILD_CACHE='{mount}/store' NO_COLOR=1 PYTHONPATH='{Path(__file__).parent.parent.parent}' "
        f"'{sys.executable}' -m llmbuild build"
    )
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    text = result.stdout + result.stderr
    assert result.returncode == 6, text
    assert "No space left" in text or "full" in text, text
    assert "Traceback" not in text
    assert not (project.root / "dist").exists() or project.snapshot() == {}
    assert project.build()["link"] == 1


def test_an_unwritable_output_is_said(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    (project.root / "dist").write_text("a file where the output directory should be")
    result = project.run("build")
    assert result.code == 6, result.text
    assert "dist" in result.text
    assert "Traceback" not in result.text
    assert (project.root / "dist").read_text() == "a file where the output directory should be"
