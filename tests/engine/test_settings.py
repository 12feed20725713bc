"""The user's settings file, sizes and ages."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine.limits import parse_age, parse_memory, parse_size
from llmbuild.engine.settings import Settings, read_settings
from llmbuild.engine.store import default_root
from llmbuild.errors import UsageError
from llmbuild.report.errors import render_error
from llmbuild.report.style import Style


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "llmbuild" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return read_settings({"XDG_CONFIG_HOME": str(tmp_path)})


def test_sizes_and_ages() -> None:
    assert [parse_size(text) for text in ("0", "12", "10GB", "1.5 MB", "8gib", "3 kB")] == [
        0,
        12,
        10**10,
        1_500_000,
        8 << 30,
        3000,
    ]
    assert [parse_age(text) for text in ("30d", "12h", "10m", "45s", "1.5h", "2w")] == [
        30 * 86400,
        43200,
        600,
        45,
        5400,
        14 * 86400,
    ]


def test_memory_is_some() -> None:
    assert parse_memory("1") == 1
    with pytest.raises(UsageError, match=r"'0\.2 B' is no memory that anything runs in"):
        parse_memory("0.2 B")


@pytest.mark.parametrize("text", ["", "GB", "ten GB", "-1GB", "1 XB", "1e3", "10 GB GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "10", "d", "3 years", "-2d"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UsageError, match="is not an age"):
        parse_age(text)


def test_no_file_sets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_settings({"XDG_CONFIG_HOME": str(tmp_path)}) == read_settings({}) == Settings()


def test_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    found = read(tmp_path, 'cache-dir = "~/cache"\nmax-size = "50GB"\njobs = 4\nexecutor = "inline"\n')
    assert found == Settings(Path("/home/u/cache"), 50 * 10**9, 4, "inline")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": "/x"}
    assert default_root(environ) == Path("/home/u/cache")
    assert default_root({**environ, "LLMBUILD_CACHE": "/c"}) == Path("/c")


def test_all_errors_at_once_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:
        read(tmp_path, 'cache-dri = "/x"\ncache-dir = "relative"\nmax-size = 5\njobs = 0\nexecutor = 1\n')
    file = tmp_path / "llmbuild" / "config.toml"
    assert render_error(caught.value, Style(200)) == "\n".join(  # type: ignore[arg-type]
        [
            f"error: {file}:1: cache-dri: there is no such setting",
            "  fix: did you mean 'cache-dir'?",
            f"error: {file}:2: cache-dir: the cache directory must be an absolute path",
            '  fix: write cache-dir = "/data/llmbuild"',
            f"error: {file}:3: max-size: this is not a size",
            '  fix: write max-size = "50GB"',
            f"error: {file}:4: jobs: this is not a number of tasks",
            "  fix: write jobs = 4",
            f"error: {file}:5: executor: this is not the name of an executor",
            '  fix: write executor = "local"',
            "5 errors",
        ]
    )


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid TOML"):
        read(tmp_path, "jobs = \n")
