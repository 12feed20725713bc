"""A conversion that was ended anywhere goes on with the shards it had, and its bytes are those of one in a single go."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmbuild.models.parameter import Parameter
from llmbuild.quantization.convert import convert
from llmbuild.quantization.journal import JOURNAL
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.inspected import facts_of

ROOT = Path(__file__).parent.parent.parent
CAP = 4096
PARAMETERS = [
    Parameter("embed.weight", (40, 64), "embedding", ("embed.weight",)),
    *(Parameter(f"layers.{n}.up.weight", (32, 64), "linear", (f"layers.{n}.up.weight",)) for n in range(6)),
    *(Parameter(f"layers.{n}.bias", (300,), "plain", (f"layers.{n}.bias",), dtype="float32") for n in range(6)),
    Parameter("fused.weight", (48, 64), "linear", ("q.weight", "k.weight")),
    Parameter("norm.weight", (64,), "plain", ("norm.weight",)),
]


class Killed(BaseException):
    """The end of the process, as far as the code under test can tell."""


class Tensor:
    def __init__(self, value: np.ndarray) -> None:
        self.shape, self.dtype, self.nbytes = value.shape, value.dtype.name, value.nbytes


class Checkpoint:
    """A checkpoint in memory that ends the process at a chosen read."""

    def __init__(self, die_at: int | None = None) -> None:
        rng = np.random.default_rng(5)
        shapes = {source: (1, *one.shape[1:]) for one in PARAMETERS for source in one.sources}
        shapes = {name: (24, 64) if name[0] in "qk" else shape for name, shape in shapes.items()}
        shapes |= {one.sources[0]: one.shape for one in PARAMETERS if len(one.sources) == 1}
        self.values = {name: (rng.standard_normal(shape) * 0.1).astype(np.float16) for name, shape in shapes.items()}
        self.tensors = {name: Tensor(value) for name, value in self.values.items()}
        self.die_at, self.reads = die_at, 0

    def read(self, name: str) -> np.ndarray:
        if self.reads == self.die_at:
            raise Killed
        self.reads += 1
        return self.values[name]

    def location(self, name: str) -> str | None:
        return None


def run(
    tmp_path: Path, scheme: str, checkpoint: Checkpoint, resume: Path | None, name: str = "out"
) -> dict[str, bytes]:
    out = tmp_path / name
    out.mkdir()
    progress: list[tuple[int, int]] = []
    convert(
        checkpoint,
        PARAMETERS,
        lambda _name: False,
        SCHEMES[scheme],
        out,
        threads=2,
        resume=resume,
        cap=CAP,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert progress[-1][0] == progress[-1][1]
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.parametrize("scheme", ["q4f16_1", "q4f32_1", "q3f16_0", "q0f16"])
def test_killed_at_any_read(tmp_path: Path, scheme: str) -> None:
    whole = run(tmp_path, scheme, Checkpoint(), None, "whole")
    assert len(whole) > 4
    sources = len(Checkpoint().tensors)
    read_again = []
    for at in range(sources):
        resume = tmp_path / f"resume{at}"
        resume.mkdir()
        with pytest.raises(Killed):
            run(tmp_path, scheme, Checkpoint(at), resume, f"killed{at}")
        checkpoint = Checkpoint()
        assert run(tmp_path, scheme, checkpoint, resume, f"out{at}") == whole
        read_again.append(checkpoint.reads)
        assert [path.name for path in resume.iterdir()] == [JOURNAL]
    assert read_again[0] == sources
    # With so small tensors reading is far ahead of writing; what was written is not read again.
    assert read_again[-1] <= read_again[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], str]:
    """The shards of a conversion and its journal, as they lie just before the shards are moved out."""
    tmp_path = tmp_path_factory.mktemp("finished")
    (tmp_path / "resume").mkdir()
    whole = run(tmp_path, "q4f16_1", Checkpoint(), tmp_path / "resume")
    return whole, (tmp_path / "resume" / JOURNAL).read_text()


def lay_out(directory: Path, whole: dict[str, bytes], journal: bytes) -> Path:
    directory.mkdir()
    for name, data in whole.items():
        if name.endswith(".bin"):
            (directory / name).write_bytes(data)
    (directory / JOURNAL).write_bytes(journal)
    return directory


def test_complete_shards_are_not_read_again(tmp_path: Path, finished: tuple[dict[str, bytes], str]) -> None:
    whole, journal = finished
    checkpoint = Checkpoint(die_at=0)
    assert run(tmp_path, "q4f16_1", checkpoint, lay_out(tmp_path / "resume", whole, journal.encode())) == whole
    assert checkpoint.reads == 0


def test_damaged_shards_are_made_again(tmp_path: Path, finished: tuple[dict[str, bytes], str]) -> None:
    whole, journal = finished
    for name in [name for name in whole if name.endswith(".bin")]:
        for way, data in (
            ("cut", whole[name][:-1]),
            ("flip", whole[name][:-1] + b"\xff"),
            ("grown", whole[name] + b"x"),
        ):
            resume = lay_out(tmp_path / f"{name}-{way}", whole, journal.encode())
            (resume / name).write_bytes(data)
            checkpoint = Checkpoint()
            assert run(tmp_path, "q4f16_1", checkpoint, resume, f"out-{name}-{way}") == whole
            assert 0 < checkpoint.reads < len(checkpoint.tensors)
        resume = lay_out(tmp_path / f"{name}-gone", whole, journal.encode())
        (resume / name).unlink()
        assert run(tmp_path, "q4f16_1", Checkpoint(), resume, f"out-{name}-gone") == whole


def test_a_journal_cut_or_scribbled_on(tmp_path: Path, finished: tuple[dict[str, bytes], str]) -> None:
    whole, journal = finished
    data = journal.encode()
    for at in range(0, len(data), 23):
        assert (
            run(tmp_path, "q4f16_1", Checkpoint(), lay_out(tmp_path / f"c{at}", whole, data[:at]), f"oc{at}") == whole
        )
        scribbled = data[:at] + b"\xa5{\n" + data[at + 3 :]
        assert (
            run(tmp_path, "q4f16_1", Checkpoint(), lay_out(tmp_path / f"s{at}", whole, scribbled), f"os{at}") == whole
        )
    for text in (b"[]\n", b'{"path": 1}\n', b'{"path": "../x", "nbytes": 1, "md5": ""}\n', b"\xff\n"):
        name = hashlib.sha256(text).hexdigest()
        assert run(tmp_path, "q4f16_1", Checkpoint(), lay_out(tmp_path / name, whole, text), f"o{name}") == whole


KILLED = """
import json, os, sys, time
from pathlib import Path
from llmbuild.engine.kind import Job
from llmbuild.tasks.quantize import KIND

params, checkpoint, facts, out, resume, kill_at = json.loads(sys.argv[1])
seen = set()
def progress(done, total, unit=""):
    if kill_at is not None and done >= total * kill_at:
        while not (Path(resume) / "journal").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
inputs = {"checkpoint": Path(checkpoint), "facts": Path(facts)}
KIND.run(Job(params, inputs, {}, Path(out), Path(out), progress, Path(resume)))
"""


def test_the_task_killed_for_good_in_the_middle(tmp_path: Path) -> None:
    from tests.tasks.test_quantize import CONFIG, write_safetensors

    size = {"hidden_size": 512, "intermediate_size": 4096, "vocab_size": 50_000, "num_hidden_layers": 4}
    config = {**CONFIG, **size, "tie_word_embeddings": True}
    rng = np.random.default_rng(2)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (50_000, 512)}
    for i in range(4):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.input_layernorm.weight": (512,), f"{layer}.post_attention_layernorm.weight": (512,)}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (4096, 512) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (512, 4096)}
        shapes |= {f"{layer}.self_attn.{n}_proj.weight": (512 if n in "qo" else 256, 512) for n in "qkvo"}
    shapes["model.norm.weight"] = (512,)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps(config))
    values = {name: rng.random(shape, np.float32).astype(np.float16) for name, shape in shapes.items()}
    write_safetensors(checkpoint / "model.safetensors", values)
    facts = facts_of(checkpoint)
    params = {
        "scheme": SCHEMES["q0f16"].to_json(),
        "model-type": None,
        "ignore-keys": [],
        "source-format": None,
        "method": "round",
        "float32": "bf16",
    }

    def start(name: str, resume: Path, kill_at: float | None) -> int:
        (tmp_path / name).mkdir()
        resume.mkdir(exist_ok=True)
        argument = json.dumps([params, str(checkpoint), str(facts), str(tmp_path / name), str(resume), kill_at])
        return subprocess.run([sys.executable, "-c", KILLED, argument], cwd=ROOT, check=False).returncode

    assert start("whole", tmp_path / "other", None) == 0
    resume = tmp_path / "resume"
    assert start("killed", resume, 0.5) == -9
    assert list((tmp_path / "killed").iterdir()) == []
    left = {path.name: path.stat().st_ino for path in resume.glob("*.bin")}
    complete = {json.loads(line)["path"] for line in (resume / JOURNAL).read_text().splitlines() if line}
    assert complete
    assert start("again", resume, None) == 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for name in complete:
        assert (tmp_path / "again" / name).stat().st_ino == left[name]
