"""The JSON schema and the documents have every key and every option."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmbuild.cli.main import main
from llmbuild.manifest.json_schema import json_schema
from llmbuild.manifest.opt import FLAGS, LEVELS, STRATEGY
from llmbuild.manifest.schema import TABLES, keys_of
from llmbuild.manifest.schemes import UNSUPPORTED
from llmbuild.quantization.scheme import SCHEMES

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs" / "manifest.md").read_text()
OPTIONS = (ROOT / "docs" / "mlc-options.md").read_text()

SECTIONS = {
    "ManifestTable": "## Top level",
    "ProjectTable": "## [project]",
    "ModelTable": "## [models.NAME]",
    "Generation": "### [models.NAME.generation]",
    "Metadata": "## [metadata]",
    "QuantizationTable": "## [quantizations.NAME]",
    "OverrideTable": "### overrides",
    "QualityTable": "## [quality]",
    "PlatformTable": "## [platforms.NAME]",
    "HostTable": "### host",
    "OptTable": "### opt",
    "BuildTable": "## [[build]]",
    "ExcludeTable": "### exclude",
    "PackageTable": "## [package.NAME]",
    "PublishTable": "## [publish.NAME]",
}

# The options of the three commands in the document that this project answers.
CONVERT_WEIGHT = ["CONFIG", "--quantization", "--model-type", "--device", "--source", "--source-format", "--output"]
GEN_CONFIG = [
    "CONFIG",
    "--quantization",
    "--model-type",
    "--conv-template",
    "--context-window-size",
    "--sliding-window-size",
    "--prefill-chunk-size",
    "--tensor-parallel-shard",
    "--output",
]
COMPILE = [
    "MODEL",
    "--quantization",
    "--model-type",
    "--device",
    "--host",
    "--opt",
    "--system-lib-prefix",
    "--output",
    "--overrides",
]
OVERRIDES = [
    "context_window_size",
    "prefill_chunk_size",
    "sliding_window",
    "max_batch_size",
    "tensor_parallel_shards",
]


def _section(text: str, heading: str) -> str:
    """The text from a heading to the next one."""
    assert f"\n{heading}\n" in text, heading
    return re.split(r"\n#{2,3} ", text.split(f"\n{heading}\n", 1)[1])[0]


@pytest.mark.parametrize("table", sorted(set(TABLES.values()), key=lambda table: table.__name__))
def test_every_key_has_a_row_with_meaning_and_default(table: Any) -> None:
    rows = {}
    for line in _section(DOCS, SECTIONS[table.__name__]).splitlines():
        if found := re.match(r"\| `([^`]+)` \| (.+) \| (.+) \|$", line):
            rows[found[1]] = (found[2], found[3])
    for key, field in zip(keys_of_class(table), table.model_fields.values(), strict=True):
        assert key in rows, f"{key} is not in docs/manifest.md"
        assert field.description, key
        meaning, _, described = field.description.partition(" Default: ")
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        # Empty tables and lists are nothing; what stands in for a key that is left out is then described.
        real = "none" if default in (None, {}, [], type(default)()) else json.dumps(default)
        real = default if field.is_required() else real
        assert real == "none" or not described, key
        assert rows[key] == (meaning, described.rstrip(".") or real)


def keys_of_class(table: Any) -> tuple[str, ...]:
    return next(keys_of(path) for path, known in TABLES.items() if known is table)


def test_the_schema_has_every_table_and_a_description_of_every_key() -> None:
    schema = json_schema()
    assert set(SECTIONS) - {"ManifestTable"} == set(schema["$defs"])
    for table in [schema, *schema["$defs"].values()]:
        assert table["additionalProperties"] is False
        assert all(value["description"] and "_" not in key for key, value in table["properties"].items())
    assert "null" not in json.dumps(schema)


def test_the_schema_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


@pytest.mark.parametrize(
    ("heading", "options"),
    [("## convert_weight", CONVERT_WEIGHT), ("## gen_config", GEN_CONFIG), ("## compile", COMPILE)],
)
def test_every_option_of_mlc_llm_has_a_key(heading: str, options: list[str]) -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", _section(OPTIONS, heading), re.MULTILINE))
    known = {key for path in TABLES for key in keys_of(path)}
    for option in options:
        assert option in rows
        keys = re.findall(r"`([a-z0-9-]+)`", rows[option])
        assert (set(keys) & known) or rows[option].startswith("none: "), option


def test_every_override_has_a_key() -> None:
    section = _section(OPTIONS, "## Names in an `--overrides` string")
    assert all(f"`{name}`" in section for name in OVERRIDES)


def test_schemes_and_levels_in_the_document_are_those_of_the_code() -> None:
    section = _section(DOCS, "## [quantizations.NAME]")
    assert all(re.search(rf"\b{name}\b", section) for name in SCHEMES)
    assert all(name in section for name in UNSUPPORTED if name.startswith("q"))
    for level, flags in LEVELS.items():
        cells = [str(flags[flag]) if flag == STRATEGY else "on" if flags[flag] else "off" for flag in FLAGS]
        assert f"| {level} | {' | '.join(cells)} |" in DOCS


def test_the_manifest_in_the_document_is_valid(tmp_path: Path) -> None:
    from llmbuild.manifest.load import load

    text = re.search(r"\n((?:    .*\n|\n)+)", DOCS.split("mlc-options.md).", 1)[1])
    assert text is not None
    manifest = re.sub(r"^    ", "", text[1], flags=re.MULTILINE)
    assert "build" in tomllib.loads(manifest)
    load(tmp_path / "buildfile.toml", manifest)
