"""A publication that is killed between any two requests goes on where it was: nothing is sent twice, and the result is the same.

The publisher is a process of its own that the server kills with SIGKILL when a request arrives, before it is answered.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import digest_bytes
from tests.helpers.publishing import Forks, forking, publication
from tests.helpers.registry import RegistryServer, running_registry
from tests.helpers.upload_hub import UploadHub, running_upload_hub

AT = pytest.mark.parametrize("number", [6, pytest.param(20, marks=pytest.mark.full)])
"""How many points to be killed at: CI takes six, `-m full` twenty."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with forking() as running:
        yield running


def points(number: int, count: int) -> list[int]:
    """So many requests out of `count`, the first and the last among them."""
    return sorted({1 + round(one * (count - 1) / (number - 1)) for one in range(number)})


class Killer:
    """Kills a process when its request with a number arrives."""

    def __init__(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.how = how
        self.at: int | None = None
        self.pid = 0

    def __call__(self, number: int) -> bool:
        if number != self.at:
            return True
        os.kill(self.pid, self.how)
        return False


def interrupted(
    server: Any, forks: Forks, to: str, files: Path, state: Path, env: dict[str, str], at: int
) -> dict[str, Any]:
    """Publish, killed at a request, and publish again; returns what the second process says."""
    killer = Killer()
    killer.at = at
    # The number of the process is known before its first request can be answered.
    server.before = lambda number: _await(killer) and killer(number)
    killer.pid = forks.start(to, files, state, env)
    assert forks.end() == {"signal": signal.SIGKILL}
    server.before = lambda _number: True
    forks.start(to, files, state, env)
    return forks.end()


def _await(killer: Killer) -> bool:
    while not killer.pid:
        os.sched_yield()
    return True


def hub_env(hub: UploadHub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}


@AT
def test_at_a_hub(forks: Forks, files: Path, tmp_path: Path, number: int) -> None:
    wanted = {file.name: file.whole() for file in publication(files).files}
    with running_upload_hub() as hub:
        forks.start("hf:org/tiny", files, tmp_path / "state", hub_env(hub, tmp_path))
        reference = forks.end()["reference"]
        count = len(hub.requests)
        large = sorted(hub.stored)
    assert count >= 20
    assert len(large) == 9
    for at in points(number, count):
        with running_upload_hub() as hub:
            found = interrupted(hub, forks, "hf:org/tiny", files, tmp_path / "state", hub_env(hub, tmp_path), at)
            assert list(found) == ["reference"], found
            branch = hub.repos["org/tiny"].branches["main"]
            assert {name: data for name, data in branch.files.items() if name != ".gitattributes"} == wanted, at
            assert found["reference"] == f"hf:org/tiny@{branch.commit}"
            # Every object arrived once, and there is one commit: upon the same files it has the same name.
            assert sorted(hub.stored) == large, at
            assert len(branch.messages) == 1, at
            assert found["reference"] == reference, at


def test_an_interrupt_ends_the_uploads_to_a_hub(forks: Forks, files: Path, tmp_path: Path) -> None:
    """The client would finish all of them first; what has arrived is not sent again."""
    with running_upload_hub() as hub:
        killer = Killer(signal.SIGINT)

        def before(number: int) -> bool:
            if killer.at is None and hub.requests[-1].path.startswith("/storage/"):
                killer.at = number
                _await(killer)
                killer(number)
                # Until the publisher has noticed it.
                threading.Event().wait(0.3)
            return True

        hub.before = before
        killer.pid = forks.start("hf:org/tiny", files, tmp_path / "state", hub_env(hub, tmp_path))
        assert forks.end() == {"error": "KeyboardInterrupt: "}
        assert len(hub.stored) <= 1
        forks.start("hf:org/tiny", files, tmp_path / "state", hub_env(hub, tmp_path))
        assert list(forks.end()) == ["reference"]
        assert len(hub.stored) == len(set(hub.stored)) == 9


@AT
def test_in_a_registry(forks: Forks, files: Path, tmp_path: Path, number: int) -> None:
    what = publication(files)
    with running_registry(tmp_path / "registry") as registry:
        # A repository for each run; blobs of one are not there for another.
        forks.start(place(registry, 0), files, tmp_path / "state", {"HOME": str(tmp_path)})
        reference = forks.end()["reference"]
        sizes, manifests = registry.sent(), registry.manifests()
        count = len(registry.requests)
        assert count >= 20
        assert {file.digest: file.size for file in what.files}.items() <= sizes.items()
        assert set(manifests.values()) == {1}
        for at in points(number, count):
            registry.requests.clear()
            env = {"HOME": str(tmp_path)}
            found = interrupted(registry, forks, place(registry, at), files, tmp_path / "state", env, at)
            assert found == {"reference": reference.replace("/run0@", f"/run{at}@")}, at
            assert registry.sent() == sizes, at
            assert registry.manifests() == manifests, at
            assert not (tmp_path / "state" / "uploads.json").exists(), at
            tagged = registry.get(f"run{at}/manifests/q4f16_1")
            assert found["reference"].endswith(f"@sha256:{digest_bytes(tagged)}")
            assert all(registry.get(f"run{at}/blobs/sha256:{file.digest}") == file.whole() for file in what.files)


def place(registry: RegistryServer, number: int) -> str:
    return f"oci:{registry.host}/run{number}:q4f16_1"
