"""A built model held against its checkpoint in transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmbuild.cli.main import main
from llmbuild.engine.kind import Job, no_progress
from llmbuild.errors import ExitCode, UsageError, VerifyError
from llmbuild.models.parameter import Parameter
from llmbuild.quantization.pack import Packer
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.quantization.unpack import unpack
from llmbuild.runtime.against import Agreement
from llmbuild.workspace.against import compare, quantize_job, require_near
from llmbuild.workspace.options import Options
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project

AGAINST = ("verify", "--against", "transformers")


def test_what_is_quantized_is_exact_and_its_distance_from_the_original_is_said(tmp_path: Path) -> None:
    manifest = TINY_MANIFEST.replace('["q4f32_1"]', '["q4f32_1", "q0f32"]')
    project = make_project(tmp_path, manifest, cached_checkpoint("gpt_neox"))
    # Code of a checkpoint does not run.
    mark, config = tmp_path / "mark", project.root / "checkpoint/config.json"
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": code}))
    (config.parent / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    project.build()
    done = project.run(*AGAINST, "--json")
    assert done.code == 0, done.text
    found = {Path(one["weights"]).name: one for one in map(json.loads, done.out.splitlines())}
    packed, plain = found["tiny-q4f32_1-MLC"], found["tiny-q0f32-MLC"]
    for one in (packed, plain):
        assert one["stored"]["distance"] < 1e-4
        assert one["stored"]["same"] == one["stored"]["positions"] == 21
    assert 0.02 < packed["original"]["distance"] < 1
    assert plain["original"]["distance"] < 0.02
    assert not mark.exists()
    text = project.run(*AGAINST, "-q", "q0f32").out
    assert text.startswith("ok tiny, q0f32, ") and text.count("positions") == 2

    # A library that computes something else: one of another kind of MLP, with weights of the same shapes.
    other = make_project(tmp_path / "other", manifest, project.root / "checkpoint")
    config = other.root / "checkpoint/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rotary_pct": 0.5}))
    other.build("-q", "q0f32")
    library = "dist/libs/tiny-q0f32-x86_64-linux-cpu.so"
    (project.root / library).unlink()
    shutil.copyfile(other.root / library, project.root / library)
    wrong = project.run(*AGAINST, "-q", "q0f32")
    assert wrong.code == ExitCode.VERIFY, wrong.text
    assert "differs from transformers with the same weights by" in wrong.err


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama"))
    assert project.run(*AGAINST).code == ExitCode.USAGE
    absent = hidden(tmp_path)
    refused = project.run(*AGAINST, env={"PYTHONPATH": absent})
    assert refused.code == ExitCode.TOOLCHAIN and "pip install 'llmbuild[transformers]'" in refused.err


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="q4f16_awq is not compared with transformers"):
        compare(
            Job({"scheme": SCHEMES["q4f16_awq"].to_json()}, {}, {}, tmp_path, tmp_path, no_progress),
            tmp_path,
            tmp_path,
            {},
        )
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama"))
    with (
        Workspace.open(project.root / "buildfile.toml", options=Options(project.store)) as workspace,
        pytest.raises(UsageError, match="is not up to date"),
        quantize_job(workspace, "tiny", "q4f32_1"),
    ):
        pass


def test_a_library_alone_has_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*AGAINST, "--library", "a.so", "--weights", "b"]) == ExitCode.USAGE
    assert "--against needs the manifest" in capsys.readouterr().err


def test_a_distance_beyond_the_tolerance_is_an_error() -> None:
    require_near(Agreement(1e-3, 1, 2), 1e-3, "float32", Path("lib.so"))
    for distance in (1.1e-3, float("inf"), float("nan")):
        with pytest.raises(VerifyError, match="differs from transformers with the same weights"):
            require_near(Agreement(distance, 1, 2), 1e-3, "float32", Path("lib.so"))


def hidden(place: Path) -> str:
    """PYTHONPATH on which transformers counts as not installed."""
    (place / "hidden").mkdir()
    (place / "hidden/sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'transformers' else found(name, *rest)\n"
    )
    return f"{place / 'hidden'}:{Path(__file__).parent.parent.parent}"


@pytest.mark.parametrize("name", ["q4f32_1", "q4f16_1", "q3f16_0", "q4f16_0"])
@pytest.mark.parametrize("role", ["linear", "embedding"])
def test_unpacking_is_the_inverse_of_packing(name: str, role: str) -> None:
    scheme = SCHEMES[name]
    transposed = scheme.inputs_first and role != "embedding"
    numbers = np.random.default_rng(1).integers(-scheme.max_int, scheme.max_int + 1, (6, 100))
    numbers[:, :: scheme.group_size // 2] = scheme.max_int
    weight = (numbers * 0.25).astype(np.float32)
    packer = Packer(scheme, 6, 100, transposed=transposed)
    packer.pack_rows(weight, 0)
    found = unpack(scheme, packer.q_weight, packer.q_scale, (6, 100), transposed=transposed)
    assert (found == weight).all()


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter("a", (9, 4), "linear", ("x", "y")),
        Parameter("a", (9, 4), "linear", ("x",), transposed=True),
        Parameter("a", (9,), "plain", ("x",), offset=1.0),
        Parameter("a", (24, 4), "linear", ("x",), grouping=(2, 4, 1, 1)),
        Parameter("a", (24,), "plain", ("x",), grouping=(4, 1, 1, 1)),
    ],
)
def test_taking_apart_is_the_inverse_of_assembling(parameter: Parameter) -> None:
    shape = parameter.stored_shape
    rows = [4, 5] if len(parameter.sources) == 2 else [shape[0]]
    sources = [np.random.default_rng(one).random((one, *shape[1:]), np.float32) for one in rows]
    found = parameter.take_apart(parameter.assemble(sources), rows)
    assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(found, sources, strict=True))
