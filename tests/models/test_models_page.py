"""The tables of docs/models.md, held against families and presets; `python -m tests.models.test_models_page` writes them."""

from __future__ import annotations

import pytest

from llmbuild.models.presets import aliases, presets
from llmbuild.models.registry import families, infer_model_type
from llmbuild.models.wrappers import WRAPPERS
from tests.helpers.imports import PACKAGE

PAGE = PACKAGE.parent / "docs" / "models.md"
END = "<!-- end -->\n"


def architectures() -> str:
    rows = ["| model-type | architectures | model_type of config.json | GGUF |", "|---|---|---|---|"]
    for name, family in families().items():
        gguf = "" if family.gguf is None else ", ".join(family.gguf.names)
        rows.append(f"| `{name}` | {', '.join(family.architectures)} | {', '.join(family.classes)} | {gguf} |")
    return "\n".join(rows) + "\n"


def wrappers() -> str:
    rows = [
        "| model_type of config.json | architecture | its text, where `text_config` names no type | left out |",
        "|---|---|---|---|",
    ]
    for name, one in WRAPPERS.items():
        left_out = [f"`{tower}`" for tower in one.towers] + ([one.passed_over[0]] if one.passed_over else [])
        rows.append(f"| {name} | {one.architecture} | {one.text} | {', '.join(left_out)} |")
    return "\n".join(rows) + "\n"


def all_presets() -> str:
    rows = ["| preset | model-type | other names of it |", "|---|---|---|"]
    names = aliases()
    for name, config in presets().items():
        others = [alias for alias in names if names[alias] == name]
        rows.append(f"| `{name}` | `{infer_model_type(config)}` | {', '.join(others)} |")
    return "\n".join(rows) + "\n"


TABLES = {"<!-- table -->\n": architectures, "<!-- wrappers -->\n": wrappers, "<!-- presets -->\n": all_presets}


@pytest.mark.parametrize("start", TABLES)
def test_the_page_lists_them_all(start: str) -> None:
    assert PAGE.read_text(encoding="utf-8").partition(start)[2].partition(END)[0] == TABLES[start]()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for start, table in TABLES.items():
        before, _, rest = text.partition(start)
        text = f"{before}{start}{table()}{END}{rest.partition(END)[2]}"
    PAGE.write_text(text, encoding="utf-8")
