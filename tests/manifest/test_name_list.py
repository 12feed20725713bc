"""Lists of names: each name is checked once, and every mistake has an error at its own place."""

from __future__ import annotations

import pytest

from llmbuild.errors import LlmbuildError, MultiError
from llmbuild.manifest.name_list import listed_names
from llmbuild.manifest.problems import Problems
from llmbuild.tomlfile import KeyPath, parse_toml

PATH: KeyPath = ("package", "p", "models")


def listed(names: list[str]) -> tuple[list[str] | None, list[str]]:
    """The result for a list where only a and b are known, and the errors with their lines."""
    lines = "".join(f'  "{name}",\n' for name in names)
    problems = Problems(parse_toml(f"[package.p]\nmodels = [\n{lines}]\n", "buildfile.toml"))

    def check(path: KeyPath, name: str) -> bool:
        if name in ("a", "b"):
            return True
        problems.add(path, f"no '{name}'")
        return False

    found = listed_names(PATH, names, "packaged", check, problems)
    try:
        problems.raise_if_any()
    except MultiError as error:
        return found, [f"{one.where}: {one.what}" for one in error.errors]
    except LlmbuildError as error:
        return found, [f"{error.where}: {error.what}"]
    return found, []


@pytest.mark.parametrize(
    ("names", "found", "errors"),
    [
        (["b", "a"], ["b", "a"], []),
        (["a", "b", "a"], ["a", "b"], ["buildfile.toml:5: package.p.models[2]: 'a' is listed twice"]),
        (
            ["c", "a", "d"],
            None,
            [
                "buildfile.toml:3: package.p.models[0]: no 'c'",
                "buildfile.toml:5: package.p.models[2]: no 'd'",
            ],
        ),
        ([], None, ["buildfile.toml:2: package.p.models: the list of models is empty, so nothing is packaged"]),
    ],
)
def test_a_list(names: list[str], found: list[str] | None, errors: list[str]) -> None:
    assert listed(names) == (found, errors)
