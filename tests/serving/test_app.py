"""The application on a model whose steps the test allows: its queue, who leaves, what fails.  The client is OpenAI's."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.helpers.serving import MESSAGES, InThread, in_thread, until

openai = pytest.importorskip("openai")


def ask(server: InThread, text: str = "hi", tokens: int = 3, **options: object) -> object:
    messages = [{"role": "user", "content": text}]
    return server.client().chat.completions.create(model="stepped", messages=messages, max_tokens=tokens, **options)


def waiting(server: InThread) -> int:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.request("GET", "/health")
    return int(json.loads(connection.getresponse().read())["waiting"])


def has_left(server: InThread) -> bool:
    """Whether the server knows that a client has left."""
    return any(answer._cancelled.is_set() for answer in tuple(server.worker._answers))


def test_two_clients_are_answered_in_their_order() -> None:
    with in_thread() as server, ThreadPoolExecutor() as clients:
        first = clients.submit(ask, server, "first")
        until(lambda: len(server.model.asked) == 1)
        second = clients.submit(ask, server, "second", tokens=2)
        until(lambda: waiting(server) == 1)
        server.model.steps.release(3)
        assert first.result().choices[0].message.content == "abc"
        assert not second.done()
        server.model.steps.release(2)
        assert second.result().choices[0].message.content == "ab"
        assert waiting(server) == 0


def test_a_stream_comes_as_it_is_computed_and_another_client_is_not_held_up() -> None:
    with in_thread() as server:
        stream = ask(server, stream=True, stream_options={"include_usage": True})
        pieces = iter(stream)
        assert next(pieces).choices[0].delta.role == "assistant"
        for letter in "abc":
            server.model.steps.release()
            assert next(pieces).choices[0].delta.content == letter
            assert server.client().models.list().data[0].id == "stepped"
        last, spent = pieces
        assert (last.choices[0].finish_reason, spent.usage.completion_tokens) == ("length", 3)
        assert len({chunk.id for chunk in (last, spent)}) == 1


def test_a_client_that_leaves_ends_its_answer_at_the_next_token() -> None:
    with in_thread() as server:
        stream = ask(server, tokens=1000, stream=True)
        server.model.steps.release()
        pieces = iter(stream)
        next(pieces)
        assert next(pieces).choices[0].delta.content == "a"
        stream.close()
        until(lambda: has_left(server))
        server.model.steps.release()
        until(lambda: server.model.ended == ["cancelled"])
        server.model.steps.release(3)
        assert ask(server).choices[0].message.content == "abc"
        assert server.model.ended == ["cancelled", "length"]


def test_a_client_that_leaves_without_a_stream_does_too() -> None:
    with in_thread() as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        body = json.dumps({"model": "stepped", "messages": MESSAGES, "max_tokens": 1000})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        until(lambda: server.model.asked)
        connection.close()
        until(lambda: has_left(server))
        server.model.steps.release()
        until(lambda: server.model.ended == ["cancelled"])
        until(lambda: server.log)
        assert re.fullmatch(r"POST /v1/chat/completions 200 [\d.]+ s, stepped, \d+\+0 tokens, cancelled", server.log[0])


def test_one_that_leaves_the_queue_is_never_computed_and_a_full_queue_is_said() -> None:
    with in_thread(most_waiting=1) as server, ThreadPoolExecutor() as clients:
        first = clients.submit(ask, server, "first")
        until(lambda: len(server.model.asked) == 1)
        second = ask(server, "second", stream=True)
        assert waiting(server) == 1
        with pytest.raises(openai.InternalServerError) as caught:
            ask(server, "third")
        assert caught.value.status_code == 503
        assert caught.value.code == "server_overloaded"
        assert int(caught.value.response.headers["retry-after"]) > 0
        second.close()
        until(lambda: waiting(server) == 0)
        fourth = clients.submit(ask, server, "fourth", tokens=1)
        until(lambda: waiting(server) == 1)
        server.model.steps.release(4)
        assert first.result().choices[0].message.content == "abc"
        assert fourth.result().choices[0].message.content == "a"
        assert server.model.ended == ["length", "length"]


def half_a_request(server: InThread) -> socket.socket:
    """A client that has sent the beginning of a body."""
    address = urlsplit(server.url)
    client = socket.create_connection((address.hostname, address.port), 60)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    client.sendall(f'{head}Content-Length: 100\r\n\r\n{{"model"'.encode())
    return client


def test_requests_that_are_still_sent_have_a_place_and_one_that_leaves_is_no_bug() -> None:
    with in_thread(most_waiting=1) as server:
        with half_a_request(server), half_a_request(server):
            until(lambda: waiting(server) == 1)
            with pytest.raises(openai.InternalServerError) as caught:
                ask(server)
            assert caught.value.code == "server_overloaded"
        server.model.steps.release(3)
        until(lambda: len([line for line in server.log if "/v1/completions 400" in line]) == 2)
        assert ask(server).choices[0].message.content == "abc"
        assert server.crashes == []


def test_one_prompt_at_a_time_is_made_into_tokens() -> None:
    with in_thread() as server, ThreadPoolExecutor() as clients:
        busy = threading.Lock()
        tokens = server.model.tokens

        def alone(text: str) -> list[int]:
            assert busy.acquire(blocking=False)
            try:
                # Another request has come, and waits.
                until(lambda: waiting(server) == 1 or server.model.ended)
                return tokens(text)
            finally:
                busy.release()

        server.model.tokens = alone  # type: ignore[method-assign]
        server.model.steps.release(6)
        answers = [clients.submit(ask, server, text) for text in ("first", "second")]
        assert [each.result().choices[0].message.content for each in answers] == ["abc", "abc"]


def test_a_failure_is_told_without_its_words() -> None:
    with in_thread() as server:
        server.model.failing = True
        server.model.steps.release(2)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(server)
        assert caught.value.code == "internal_error"
        assert "secret" not in str(caught.value.body)
        with pytest.raises(openai.APIError) as streamed:
            list(ask(server, stream=True))
        assert streamed.value.code == "internal_error"
        assert [str(error) for error in server.crashes] == ["secret words of a failure"] * 2
        assert not [line for line in server.log if "secret" in line]
        # The server goes on.
        server.model.failing = False
        server.model.steps.release(3)
        assert ask(server).choices[0].message.content == "abc"


def test_a_page_of_an_origin_is_told_of_failures_too() -> None:
    origin = "https://page.example"
    with in_thread(origins=[origin]) as server:
        server.model.failing = True
        server.model.steps.release()
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        body = json.dumps({"model": "stepped", "messages": MESSAGES})
        headers = {"Content-Type": "application/json", "Origin": origin}
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        assert (response.status, response.headers["access-control-allow-origin"]) == (500, origin)


def test_the_log_has_nothing_of_what_was_said() -> None:
    with in_thread() as server:
        server.model.steps.release(3)
        ask(server, "a secret question")
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        connection.request("GET", "/nowhere%1b[2J?key=secret")
        assert connection.getresponse().status == 404
        until(lambda: len(server.log) == 2)
        assert "secret" not in "".join(server.log)
        assert re.fullmatch(r"POST /v1/chat/completions 200 [\d.]+ s, stepped, \d+\+3 tokens, length", server.log[0])
        assert server.log[1].startswith("GET /nowhere\\x1b[2J 404 ")


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{", {"Content-Type": "application/json"}, 400, "the body is not JSON"),
        (b'{"n": NaN}', {"Content-Type": "application/json"}, 400, "NaN is no JSON number"),
        (b'{"n": 1, "n": 2}', {"Content-Type": "application/json"}, 400, "twice"),
        (b"[" * 10_000, {"Content-Type": "application/json"}, 400, "nested too deeply"),
        (b"\xff", {"Content-Type": "application/json; charset=utf-8"}, 400, "utf-8"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "application/json"),
        (b" " * (4 << 20) + b"{}", {"Content-Type": "application/json"}, 413, "more than 4194304 bytes"),
        (b"{}", {"Content-Type": "application/json", "Host": "LocalHost:80"}, 400, "is missing"),
        (b"{}", {"Content-Type": "application/json", "Host": "rebound.example:80"}, 403, "this machine alone"),
    ],
)
def test_bad_bodies(body: bytes, headers: dict[str, str], status: int, words: str) -> None:
    with in_thread() as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        error = json.loads(response.read())["error"]
        assert response.status == status
        assert words in error["message"]
        assert error["type"] == "invalid_request_error"
