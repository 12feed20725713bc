"""Fixtures of the publishing tests: running servers, and an environment that reaches nothing but loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.programs.environment import CREDENTIALS
from llmbuild.publishing.kinds import oci
from llmbuild.sources import request
from tests.helpers.publishing import make_files
from tests.helpers.registry import RegistryServer, running_registry
from tests.helpers.upload_hub import UploadHub, running_upload_hub


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no login of the user's, no waiting between attempts, and small parts."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", *CREDENTIALS):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(request, "POLICY", request.Patience(attempts=3, delay=0.0, timeout=10.0))
    monkeypatch.setattr(oci, "PART", 1000)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path / "files")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A hub that HF_ENDPOINT names, and the token for it."""
    with running_upload_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with running_registry(tmp_path / "registry") as running:
        yield running
