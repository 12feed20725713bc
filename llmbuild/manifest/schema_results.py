"""The tables of the manifest that say what becomes of what is built: packages, and where results are published."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from llmbuild.manifest.schema_table import Name, Table, string_or_table

_Weights = Literal["bundle", "url"]
_WeightsOfAllOrEach = Annotated[
    Annotated[_Weights, Tag("string")] | Annotated[dict[Name, _Weights], Tag("table")], Discriminator(string_or_table)
]


def _size(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str) or value.strip().isdigit():
        # A bare number in quotation marks would be bytes.
        written = f'"{value} GB"' if isinstance(value, str) or (number and value > 0) else '"8 GB"'
        raise ValueError(f"must be a size with its unit, not {value}", f"write memory = {written}")
    return value


class PackageTable(Table):
    """What an application takes of a build, laid out as its runtime asks for it.

    The keys after `memory` are those of some kinds only (`PackageKind.options`).
    """

    kind: str | None = Field(
        default=None,
        description="Kind of the package: see docs/packages.md. Default: the table's name, if that is one.",
    )
    models: list[str] | None = Field(
        default=None, description="Names of models. Default: every model of the builds that has weights."
    )
    quantizations: list[str] | None = Field(
        default=None, description="Names of schemes. Default: every scheme of the builds."
    )
    platforms: list[str] | None = Field(
        default=None, description="Names of platforms. Default: every platform of the builds that the kind takes."
    )
    output: str | None = Field(
        default=None, description="Name of its folder in the project's output. Default: the table's name."
    )
    memory: Annotated[str | None, BeforeValidator(_size)] = Field(
        default=None,
        description="Most memory that a model may need where it runs, such as 8 GB. Default: no limit.",
    )
    weights: _WeightsOfAllOrEach | None = Field(
        default=None,
        description='ios, android: "bundle" puts the weights into the package, "url" has the application download them; '
        'a table says so for each model. Default: "bundle".',
    )
    page: bool | None = Field(
        default=None,
        description="web: whether the folder has a chat page, with the JavaScript of WebLLM. Default: false.",
    )
    web_llm: str | None = Field(
        default=None, description="web: the WebLLM of the page. Default: npm:@mlc-ai/web-llm==0.2.86."
    )
    url: str | None = Field(
        default=None,
        description="web, ios, android: where the models will be, with {model} and {quantization} for their names. "
        "Default: in the folder.",
    )


class PublishTable(Table):
    """A destination of `llmbuild publish`."""

    to: str | None = Field(
        default=None,
        description='Where to: "hf:org/{model}-{quantization}-MLC" or "oci:ghcr.io/org/{model}:{quantization}". Required.',
    )
    models: list[str] | None = Field(default=None, description="Names of models. Default: all of the matrix.")
    quantizations: list[str] | None = Field(default=None, description="Names of schemes. Default: all of the matrix.")
    platforms: list[str] | None = Field(
        default=None,
        description="Names of the platforms whose libraries go along; an empty list for none. Default: all of the matrix.",
    )
    content: Literal["model", "checkpoint"] | None = Field(
        default=None,
        description='What is published: what was built ("model"), or the files that were fetched, for others to build from '
        '("checkpoint"). Default: "model".',
    )
    private: bool | None = Field(
        default=None,
        description="Whether a repository of a hub is private; one that is there must be so already. Default: the hub's.",
    )
    revision: str | None = Field(default=None, description='Branch of the repository of a hub. Default: "main".')
    license: str | None = Field(
        default=None,
        description="The license of the weights, for the model card, as its SPDX identifier or the hub's. Default: what "
        "the checkpoint's config.json says, else none.",
    )
