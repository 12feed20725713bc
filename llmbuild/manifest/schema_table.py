"""What all tables of the manifest's schema share: strict keys in kebab-case, and names.  Importing this imports pydantic."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*(?![\s\S])"
"""A `$` of Python also matches before a line break at the end; this means the same in Python and JavaScript."""

LONGEST = 100
"""Letters of a name: a file's name contains up to three names and has 255 bytes at most."""

Name = Annotated[str, StringConstraints(pattern=NAME, max_length=LONGEST)]


def kebab(name: str) -> str:
    return name.replace("_", "-")


class Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=kebab,
        serialize_by_alias=True,
        protected_namespaces=(),
        regex_engine="python-re",
    )


def string_or_table(value: Any) -> str:
    return "string" if isinstance(value, str) else "table"
