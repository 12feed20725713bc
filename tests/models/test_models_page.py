"""The table of docs/models.md, held against the families; `python -m tests.models.test_models_page` writes it."""

from __future__ import annotations

from llmbuild.models.registry import families
from tests.helpers.imports import PACKAGE

PAGE = PACKAGE.parent / "docs" / "models.md"
START, END = "<!-- table -->\n", "<!-- end -->\n"


def table() -> str:
    rows = ["| model-type | architectures | model_type of config.json |", "|---|---|---|"]
    for name, family in families().items():
        rows.append(f"| `{name}` | {', '.join(family.architectures)} | {', '.join(family.classes)} |")
    return "\n".join(rows) + "\n"


def test_the_page_lists_the_families() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0] == table()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(f"{before}{START}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")
