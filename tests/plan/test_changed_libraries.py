"""A package's other libraries are named in reasons, and not its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.canonical import Json
from llmbuild.manifest.load import load
from llmbuild.plan.packages import join_of, package_parts
from llmbuild.plan.reasons import MISSING, parameter_reasons, sentence

IOS = "aarch64-ios-metal"
MANIFEST = """\
[models]
zeta = { source = "checkpoint", conv-template = "chatml" }
alpha = { source = "checkpoint", conv-template = "chatml" }

[[build]]
quantizations = ["q4f16_1"]
platforms = ["PLATFORM"]

[package.server]
[package.ios]
"""


@pytest.fixture(autouse=True)
def _nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest's checkpoint does not exist, whatever the directory of the tests has."""
    monkeypatch.chdir(tmp_path)


def parts(kind: str, old: str = "", new: str = "") -> tuple[dict[str, Json], dict[str, Json]]:
    """The parameters of a package's task and of its join after a change of the manifest."""
    text = MANIFEST.replace("PLATFORM", 'aarch64-ios-metal", "x86_64-linux-cpu')
    assert old in text
    project = load(Path("buildfile.toml"), text.replace(old, new)).project
    package = project.packages[kind]
    found = package_parts(package, project.platforms)
    return dict(found.params), {"libraries": found.joins.get(join_of(package, ""), {})}


def said(kind: str, old: str, new: str) -> list[list[str]]:
    pairs = zip(parts(kind), parts(kind, old, new), strict=True)
    return [[sentence(reason) for reason in parameter_reasons(before, after)] for before, after in pairs]


ALPHA = 'alpha = { source = "checkpoint", conv-template = "chatml" }\n'


@pytest.mark.parametrize(
    ("old", "new", "of_package", "of_join"),
    [
        (ALPHA, "", [f"library alpha-q4f16_1-{IOS} removed"], [f"library alpha-q4f16_1-{IOS} removed"]),
        (
            ALPHA,
            ALPHA + ALPHA.replace("alpha", "beta"),
            [f"library beta-q4f16_1-{IOS} added"],
            [f"library beta-q4f16_1-{IOS} added"],
        ),
        (
            "[[build]]",
            f'[platforms.{IOS}]\nsystem-lib-prefix = "{{model}}_"\n[[build]]',
            [f"libraries zeta-q4f16_1-{IOS} and alpha-q4f16_1-{IOS} changed"],
            [],
        ),
        (
            "[package.ios]",
            '[package.ios]\nmodels = ["alpha", "zeta"]',
            ["the libraries are in another order"],
            [],
        ),
        (
            "[package.ios]",
            '[package.ios]\nurl = "https://host/{model}"\nweights = { alpha = "url" }',
            ["url set to https://host/{model}", "weights set to " + '{"alpha": "url"}'],
            [],
        ),
    ],
)  # fmt: skip
def test_what_is_said(old: str, new: str, of_package: list[str], of_join: list[str]) -> None:
    assert said("ios", old, new) == [of_package, of_join]


def test_a_key_of_another_form_is_shown_as_it_is() -> None:
    reasons = parameter_reasons({"members": [{"name": "x"}]}, {"members": []})
    assert [sentence(one) for one in reasons] == ['members [{"name": "x"}] -> []']
    (gone,) = parameter_reasons({"members": [{"name": "x"}]}, {})
    assert gone.new == MISSING  # type: ignore[union-attr]
    assert sentence(gone) == 'members [{"name": "x"}] -> default'
