"""`llmbuild serve` as a process, with a real library, asked by OpenAI's client."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llmbuild
from llmbuild.cli.main import main
from llmbuild.cli.serve import by_name
from llmbuild.conversation.prompt import prefix_token_ids
from llmbuild.errors import UsageError
from llmbuild.manifest.locate import BuiltModel
from llmbuild.serving.server import bind
from tests.helpers.cli import ProjectDir
from tests.helpers.serving import MESSAGES, Process, served, until

openai = pytest.importorskip("openai")
NAME = "tiny-q0f32"
LIKELIEST: dict[str, Any] = {"model": NAME, "messages": MESSAGES, "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def server(built: ProjectDir) -> Iterator[Process]:
    """A server of the tiny model on this machine alone, without a key."""
    with served(built.root) as process:
        yield process


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> str:
    """What the model answers to `LIKELIEST`."""
    with llmbuild.load(model_dir, threads=1) as model:
        return model.chat(MESSAGES, temperature=0, max_tokens=12)


def test_an_answer_is_that_of_the_model(server: Process, expected: str) -> None:
    client = server.client()
    reply = client.chat.completions.create(**LIKELIEST)
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", expected, "length")
    assert reply.usage.completion_tokens == 12
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12
    again = client.chat.completions.create(**LIKELIEST)
    assert again.choices == reply.choices
    assert again.id != reply.id
    assert again.usage.prompt_tokens_details.cached_tokens == reply.usage.prompt_tokens // 128 * 128
    drawn = [client.chat.completions.create(**{**LIKELIEST, "temperature": 2, "seed": seed}) for seed in (1, 1, 2)]
    texts = [each.choices[0].message.content for each in drawn]
    assert texts[0] == texts[1] != texts[2]


def test_a_stream_joins_to_the_same_answer(server: Process, expected: str) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, spent = server.client().chat.completions.create(**LIKELIEST, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert (spent.choices, spent.usage.completion_tokens) == ([], 12)


def test_a_stop_ends_the_answer(server: Process, expected: str) -> None:
    reply = server.client().chat.completions.create(**LIKELIEST, stop=[expected[3], "never"])
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content == expected[: expected.index(expected[3])]


def test_a_text_and_ids_are_continued(server: Process, model_dir: Path) -> None:
    client = server.client()
    with llmbuild.load(model_dir, threads=1) as model:
        ids = [*prefix_token_ids(model.config["conv_template"]), *model.tokens("the hat")]
        wanted = model.generate(ids, temperature=0, max_tokens=5)
    for prompt in ("the hat", ids):
        reply = client.completions.create(model=NAME, prompt=prompt, temperature=0, max_tokens=5)
        assert (reply.choices[0].text, reply.choices[0].finish_reason) == (wanted, "length")
        assert reply.usage.prompt_tokens == len(ids)
    pieces = client.completions.create(model=NAME, prompt="the hat", temperature=0, max_tokens=5, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == wanted
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=NAME, prompt=[1, 10**6])
    assert caught.value.param == "prompt"


def test_clients_at_once_have_each_its_own_answer(server: Process) -> None:
    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"hat {number % 3}"}]
        stream = server.client().chat.completions.create(**{**LIKELIEST, "messages": messages}, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    alone = [ask(number) for number in range(3)]
    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(ask, range(6))) == alone * 2


def test_the_context_ends_an_answer_and_bounds_a_prompt(server: Process, model_dir: Path) -> None:
    client = server.client()
    reply = client.chat.completions.create(model=NAME, messages=MESSAGES, temperature=2, seed=5)
    context = json.loads((model_dir / "mlc-chat-config.json").read_text())
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.total_tokens <= context["context_window_size"] + 1
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x " * 500}])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert "400 tokens" in caught.value.message


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"extra_body": {"best": 1}}, "best"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
         "messages[0].content[0]"),
    ],
)  # fmt: skip
def test_what_it_cannot_is_a_400_that_names_the_parameter(server: Process, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(**{**LIKELIEST, **options})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_models_and_paths_that_are_not_there(server: Process) -> None:
    client = server.client()
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id) == model
    for ask in (lambda: client.models.retrieve("tiny"), lambda: client.completions.create(model="tiny", prompt="x")):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=NAME, input="x")


def test_a_key_and_origins(built: ProjectDir) -> None:
    origin = "https://page.example"
    with served(built.root, "--cors", origin, "--queue", "0", env={"LLMBUILD_API_KEY": "correct"}) as server:
        with pytest.raises(openai.AuthenticationError) as caught:
            server.client("wrong").models.list()
        assert caught.value.code == "invalid_api_key"
        assert server.client("correct").models.list().data[0].id == NAME
        answers = {}
        for method, path, headers in (
            ("GET", "/health", {}),
            ("GET", "/v1/models", {}),
            (
                "OPTIONS",
                "/v1/chat/completions",
                {
                    "Origin": origin,
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Private-Network": "true",
                },
            ),
            ("OPTIONS", "/v1/completions", {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}),
        ):
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            response.read()
            answers[path] = (response.status, response.headers.get("access-control-allow-origin"))
        assert answers == {
            "/health": (200, None),
            "/v1/models": (401, None),
            "/v1/chat/completions": (200, origin),
            "/v1/completions": (400, None),
        }
        assert "correct" not in "".join(server.lines)


def reaches(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), 5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_finishes_what_it_has_begun(built: ProjectDir, number: int) -> None:
    with served(built.root) as server:
        url = server.url
        stream = iter(server.client().chat.completions.create(**{**LIKELIEST, "max_tokens": 200}, stream=True))
        next(stream)
        server.popen.send_signal(number)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("stop", "length")
        assert server.popen.wait(60) == 0
    assert server.lines[-1] == "stopped"
    assert not reaches(url)


def test_a_second_ctrl_c_does_not_wait(built: ProjectDir) -> None:
    """More is asked than the ten seconds of a stopping server have time for; it stops after the next token."""
    with served(built.root) as server, ThreadPoolExecutor() as clients:
        client = server.client()
        long = {"model": NAME, "prompt": [1], "temperature": 2, "max_tokens": 390, "extra_body": {"seed": 3}}
        asked = [clients.submit(client.completions.create, **long, stream=True) for _ in range(20)]
        streams = [iter(each.result()) for each in asked]
        next(streams[0])
        server.popen.send_signal(signal.SIGINT)
        until(lambda: not reaches(server.url))
        began = time.monotonic()
        server.popen.send_signal(signal.SIGINT)
        assert server.popen.wait(60) == 0
        assert time.monotonic() - began < 8
        with pytest.raises(openai.APIConnectionError):
            list(streams[-1])
    assert server.lines[-1] == "stopped"


@pytest.mark.parametrize("listening", [True, False])
def test_a_port_that_is_taken(built: ProjectDir, listening: bool) -> None:
    """By a server, or by one that loads its models."""
    with socket.create_server(("127.0.0.1", 0)) if listening else bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        result = built.run("serve", "--port", port)
    assert result.code == 2
    assert f"the server cannot have 127.0.0.1, port {port}" in result.err
    assert "choose another --port" in result.err


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (["--port", "70000"], {}, "--port must be 0 to 65535, not 70000"),
        (["--host", "192.0.2.1"], {}, "choose another --host"),
        (["--queue", "-1"], {}, "--queue must be 0 or more, not -1"),
        (["--max-tokens", "0"], {}, "--max-tokens must be 1 or more, not 0"),
        (["--cors", "page.example"], {}, "'page.example' is no origin"),
        (["--cors", "https://page.example/"], {}, "is no origin"),
        ([], {"LLMBUILD_API_KEY": ""}, "LLMBUILD_API_KEY is empty"),
        ([], {"LLMBUILD_API_KEY": "a\nb"}, "LLMBUILD_API_KEY is no key"),
        (["tinny"], {}, "did you mean 'tiny'?"),
        (["--host", "a..b"], {}, "'a..b' is no name of a host"),
        ([], {"LLMBUILD_API_KEY": "a "}, "LLMBUILD_API_KEY is no key"),
    ],
)
def test_wrong_command_lines(
    built: ProjectDir,
    arguments: list[str],
    env: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(built.root)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_two_libraries_of_one_name() -> None:
    built = [BuiltModel(f"tiny, q0f32, {name}", Path(f"{name}.so"), Path("dist/tiny-q0f32-MLC")) for name in "ab"]
    assert list(by_name(built[:1])) == [NAME]
    with pytest.raises(UsageError) as caught:
        by_name(built)
    assert str(caught.value) == (
        "two libraries of 'tiny-q0f32' run here\n"
        "  why: [tiny, q0f32, a] and [tiny, q0f32, b]\n"
        "  fix: name one with --platform"
    )


def test_a_tokenizer_that_cannot_be_read_stops_the_server(
    built: ProjectDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = shutil.copytree(built.root / "dist" / f"{NAME}-MLC", tmp_path / f"{NAME}-MLC")
    (weights / "tokenizer.json").write_text("{}")
    (library,) = (built.root / "dist/libs").glob("*.so")
    monkeypatch.chdir(built.root)
    assert main(["serve", "--port", "0", "--weights", str(weights), "--library", str(library)]) == 3
    assert "the tokenizer cannot be read" in capsys.readouterr().err


def test_without_the_extra(
    built: ProjectDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    monkeypatch.chdir(built.root)
    assert main(["serve"]) == 5
    assert "pip install 'llmbuild[serve]'" in capsys.readouterr().err


def test_the_command_line_stays_light() -> None:
    code = "import sys, llmbuild.cli.serve; print({'starlette', 'uvicorn', 'pydantic', 'tvm'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
