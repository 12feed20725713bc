"""The link task on objects made by the machine's own compiler."""

from __future__ import annotations

import ctypes
import dataclasses
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from llmbuild.engine.kind import Job
from llmbuild.programs.zig import zig
from llmbuild.tasks import link


def job(tmp_path: Path, **params: object) -> Job:
    for name in ("objects", "out", "scratch"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.c").write_text("int answer(void) { return 42; }")
    subprocess.run(["cc", "-fPIC", "-c", "a.c", "-o", "objects/lib0.o"], cwd=tmp_path, check=True)
    (tmp_path / "objects/metadata.json").write_text("{}")
    return Job(params, {"objects": tmp_path / "objects"}, {}, tmp_path / "out", tmp_path / "scratch", lambda *_: None)  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_shared_object(tmp_path: Path) -> None:
    link.run(job(tmp_path, artifact="so", link={}, **{"system-lib-prefix": None}))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lib.so"]
    assert ctypes.CDLL(str(tmp_path / "out/lib.so")).answer() == 42


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_archive(tmp_path: Path) -> None:
    link.run(job(tmp_path, artifact="tar", link={}, **{"system-lib-prefix": "m_"}))
    with tarfile.open(tmp_path / "out/lib.tar") as tar:
        assert tar.getnames() == ["m_lib0.o"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_model_type_in_a_prefix_comes_from_the_record(tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text('{"model_type": "gpt-neox"}')
    given = job(tmp_path, artifact="tar", link={}, **{"system-lib-prefix": "{model_type}_q4f16_1_"})
    link.run(dataclasses.replace(given, inputs={**given.inputs, "library": tmp_path / "library.json"}))
    with tarfile.open(tmp_path / "out/lib.tar") as tar:
        assert tar.getnames() == ["gpt_neox_q4f16_1_lib0.o"]


@pytest.mark.skipif(zig("ld.lld") is None or platform.machine() != "x86_64", reason="needs llmbuild[cross]")
def test_the_name_reaches_a_file_that_holds_it(tmp_path: Path) -> None:
    made = job(tmp_path, artifact="so", link={"triple": "x86_64-linux-android"}, name="libmodel.so")
    link.run(made)
    assert b"\0libmodel.so\0" in (tmp_path / "out/lib.so").read_bytes()


def test_params_are_declared() -> None:
    assert set(link.KIND.params) == {"artifact", "link", "system-lib-prefix", "name"}
