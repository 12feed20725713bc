"""The README's quick start on the real small model: build, build again, verify, and ask."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.guides import blocks
from tests.helpers.serving import served

ROOT = Path(__file__).parent.parent.parent
LIBRARY = "dist/libs/smollm2-q4f32_1-x86_64-linux-cpu.so"
WEIGHTS = "dist/smollm2-q4f32_1-MLC"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """The example manifest, built once."""
    project = make_project(tmp_path_factory.mktemp("quick-start"), (ROOT / "buildfile.example.toml").read_text())
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}
    return project


pytestmark = pytest.mark.slow


def test_it_answers_paris(project: ProjectDir) -> None:
    result = project.run("chat", "--prompt", QUESTION, "--temperature", "0")
    assert result.code == 0, result.text
    assert result.out.strip() == "The capital of France is Paris."
    speeds = re.fullmatch(
        r"prefill \d+ tokens at ([\d.]+) tok/s, decode \d+ tokens at ([\d.]+) tok/s", result.err.strip()
    )
    assert speeds is not None, result.err
    assert all(float(speed) > 0 for speed in speeds.groups())


def test_the_template_is_the_checkpoints_own(project: ProjectDir) -> None:
    template = json.loads((project.root / WEIGHTS / "mlc-chat-config.json").read_text())["conv_template"]
    assert template["system_message"] == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert template["stop_token_ids"] == [2]


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["q0f32", "q4f16_1"])
def test_it_answers_paris_in_other_schemes_too(scheme: str, project: ProjectDir, tmp_path: Path) -> None:
    manifest = (ROOT / "buildfile.example.toml").read_text()
    other = make_project(tmp_path, manifest.replace("q4f32_1", scheme))
    store = {"LLMBUILD_CACHE": str(project.store)}
    other.build(env=store)
    result = other.run("chat", "--prompt", QUESTION, "--temperature", "0", env=store)
    assert result.out.strip() == "The capital of France is Paris.", result.text


def test_a_second_build_runs_nothing(project: ProjectDir) -> None:
    before = project.snapshot()
    assert project.build() == {}
    assert project.snapshot() == before


def test_verify_runs_library_and_weights(project: ProjectDir) -> None:
    result = project.run("verify", "--json")
    assert result.code == 0, result.text
    record = json.loads(result.out)
    assert record["decode_steps"] == 5
    assert 0 < record["distance"] < 1e-3
    assert record["parameters"] > 200


def test_verify_finds_a_flipped_bit(project: ProjectDir, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(project.root / WEIGHTS, weights)
    shard = weights / "params_shard_0.bin"
    data = bytearray(shard.read_bytes())
    data[12345] ^= 4
    shard.unlink()
    shard.write_bytes(data)
    result = project.run("verify", "--library", str(project.root / LIBRARY), "--weights", str(weights))
    assert result.code == 7, result.text
    assert "MD5" in result.err
    assert "params_shard_0.bin" in result.err


def test_the_same_seed_gives_the_same_answer(project: ProjectDir) -> None:
    ask = ["chat", "--prompt", "Name a colour.", "--temperature", "1.5", "--max-tokens", "12"]
    first, second, other = (project.run(*ask, "--seed", seed).out for seed in ("11", "11", "12"))
    assert first == second
    assert first != other


def test_a_conversation_remembers_and_its_commands_work(project: ProjectDir) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "llmbuild", "chat", "--temperature", "0"],
        cwd=str(project.root),
        env={
            "PYTHONPATH": str(ROOT),
            "LLMBUILD_CACHE": str(project.store),
            "PATH": "/usr/bin:/bin",
            "HOME": str(project.root),
        },
        encoding="utf-8",
        timeout=120,
    )
    child.expect_exact("chatting with smollm2, q4f32_1, x86_64-linux-cpu (activations: int8x2)")
    child.expect("> ")
    child.sendline("My name is Ada. Remember it.")
    child.expect("\n> ")
    child.sendline("What is my name?")
    child.expect("Ada")
    child.expect("\n> ")
    child.sendline("/stats")
    child.expect(r"decode \d+ tokens at [\d.]+ tok/s")
    child.sendline("/reset")
    child.sendline("/exit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_conversation_that_outgrows_the_window_is_said(project: ProjectDir) -> None:
    result = project.run("chat", "--context", "24", "--prompt", QUESTION)
    assert result.code == 2, result.text
    assert "the context window 24" in result.err
    assert "Traceback" not in result.err
    cut = project.run("chat", "--context", "48", "--prompt", QUESTION, "--temperature", "0", "--max-tokens", "4")
    assert cut.code == 0
    assert "the answer was cut at --max-tokens" in cut.err


def test_it_is_served(project: ProjectDir) -> None:
    """The real model behind OpenAI's client; a request whose client leaves does not hold up the next one."""
    openai = pytest.importorskip("openai")
    options = {"model": "smollm2-q4f32_1", "temperature": 0}
    with served(project.root) as server:
        client = server.client()
        endless = [{"role": "user", "content": "Count from one to a thousand, in words, one number a line."}]
        with client.chat.completions.create(**options, messages=endless, stream=True) as stream:
            while not next(stream).choices[0].delta.content:
                pass
        reply = client.chat.completions.create(**options, messages=[{"role": "user", "content": QUESTION}])
        assert reply.choices[0].message.content == "The capital of France is Paris."
        assert reply.choices[0].finish_reason == "stop"
        assert server.wait_for(", cancelled").endswith(" tokens, cancelled")
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**options, messages=endless, n=2)


def test_the_guide_for_python_programs(project: ProjectDir, tmp_path: Path) -> None:
    """docs/guides/python.md, block after block; the model was built before, so that its build only puts files in place."""
    (manifest,) = blocks("python", "toml")
    guided = ProjectDir(tmp_path, project.store)
    guided.write(manifest)
    script = tmp_path / "guide.py"
    script.write_text("".join(blocks("python", "python")))
    environment = {**os.environ, "LLMBUILD_CACHE": str(project.store), "PYTHONPATH": str(ROOT), "TVM_BIND_THREADS": "0"}
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    states, labels = zip(*(line.split(" ", 1) for line in lines[:6]), strict=True)
    assert set(states) <= {"cached", "restore"}
    assert [label.partition("[")[0] for label in labels] == ["fetch", "inspect", "quantize", "config", "lower", "link"]
    assert [Path(line) for line in lines if "/dist/" in line] == [
        tmp_path / place for place in (WEIGHTS, LIBRARY, "dist/server")
    ]
    assert "no model is named 'smollm'" in lines
    assert "did you mean 'smollm2'?" in lines
    # The loaded model, the server, and the package each say it once.
    assert lines.count("The capital of France is Paris.") == 3
    assert any(re.fullmatch(r"[1-9]\d* tokens a second", line) for line in lines)
