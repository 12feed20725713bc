"""WebLLM's models: which family and preset the records of its list are of.

`python -m tests.helpers.webllm_models` writes docs/webllm-models.md from the list in webllm_records.txt, and with the word
`records` first that list from WebLLM's package of npm.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.errors import InputError
from llmbuild.models.presets import preset, presets
from llmbuild.models.registry import infer_model_type
from tests.helpers.browser import WEB_LLM, web_llm
from tests.helpers.imports import PACKAGE
from tests.helpers.node import VERSIONS

RECORDS = Path(__file__).with_name("webllm_records.txt")
PAGE = PACKAGE.parent / "docs" / "webllm-models.md"

OTHER_KINDS = {
    r"Qwen3\.5-.*": "recurrent state",
    r".*-vision-.*": "images",
    r"snowflake-arctic-embed-.*": "an encoder",
}
"""Models that the comparison leaves out, and what they have."""

SHAPES_OF = {
    r"DeepSeek-R1-Distill-Llama-8B|Hermes-3-Llama-3\.1-8B": "Llama-3.1-8B",
    r"DeepSeek-R1-Distill-Qwen-7B|Qwen2-Math-7B-Instruct": "Qwen2.5-7B",
    r"Hermes-2-(Pro|Theta)-Llama-3-8B": "Llama-3-8B",
    r"Hermes-3-Llama-3\.2-3B": "Llama-3.2-3B",
    r"(Hermes-2-Pro|OpenHermes-2\.5|NeuralHermes-2\.5)-Mistral-7B|WizardMath-7B-V1\.1": "Mistral-7B-Instruct-v0.2",
    r"Qwen2(\.5)?-Math-1\.5B-Instruct": "Qwen2.5-1.5B",
}
"""Fine-tuned models under another name than the one whose layers they have."""

HEAD = """\
# WebLLM's models

The models of the list that the npm package {package} {version} comes with, and for each a preset, which builds the library
without a checkpoint. A fine-tuned model stands with the one whose layers it has; where its own config.json says another number of
tokens or another base of RoPE, its library is built from the checkpoint.

{found} of the {all} records ({percent:.1f} %) have a preset. Models of other kinds are left out of the count: with recurrent
state, with images, and encoders.

| model | records in | model-type | preset |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the list with all its schemes."""

    name: str
    schemes: tuple[str, ...]

    @property
    def other_kind(self) -> str | None:
        return _match(OTHER_KINDS, self.name)

    @property
    def preset(self) -> str | None:
        name = _match(SHAPES_OF, self.name) or self.name
        try:
            config = preset(name)
        except InputError:
            return None
        return next(own for own, content in presets().items() if content is config)

    @property
    def model_type(self) -> str | None:
        return None if self.preset is None else infer_model_type(preset(self.preset))


def _match(patterns: dict[str, str], name: str) -> str | None:
    return next((value for pattern, value in patterns.items() if re.fullmatch(pattern, name)), None)


def records() -> Sequence[str]:
    """The ids of the list, in its order."""
    return [line for line in RECORDS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def split(record: str) -> tuple[str, str]:
    """The model and the scheme of a record's id."""
    found = re.fullmatch(r"(.+)-(q\df(?:16|32)(?:_\d)?)-MLC(-1k|-b\d+)?", record)
    assert found is not None, record
    return found[1], found[2]


def models() -> Iterator[Model]:
    """The models of the list, each once, in the list's order."""
    schemes: dict[str, set[str]] = {}
    for record in records():
        name, scheme = split(record)
        schemes.setdefault(name, set()).add(scheme)
    for name, found in schemes.items():
        yield Model(name, tuple(sorted(found)))


def counts() -> tuple[int, int]:
    """(records with a preset, all) of those that the comparison counts."""
    known = {model.name: model for model in models() if model.other_kind is None}
    counted = [known[name] for name, _ in map(split, records()) if name in known]
    return sum(model.preset is not None for model in counted), len(counted)


def page() -> str:
    found, every = counts()
    text = HEAD.format(package=WEB_LLM, version=VERSIONS[WEB_LLM], found=found, all=every, percent=100 * found / every)
    for model in models():
        if model.other_kind is not None:
            columns = "", f"none: it has {model.other_kind}"
        elif model.preset is None:
            columns = "", "none yet"
        else:
            columns = f"`{model.model_type}`", f"`{model.preset}`"
        text += f"| {model.name} | {', '.join(model.schemes)} | {' | '.join(columns)} |\n"
    return text


def packaged() -> str:
    """The text of the list of ids, from WebLLM's package."""
    place = web_llm()
    assert place is not None
    script = f"import({json.dumps(str(place / 'lib' / 'index.js'))}).then(package => {{ for (const record of " + (
        "package.prebuiltAppConfig.model_list) console.log(record.model_id); })"
    )
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    return f"# The ids of prebuiltAppConfig.model_list in the npm package {WEB_LLM} {VERSIONS[WEB_LLM]}.\n{done.stdout}"


if __name__ == "__main__":
    if sys.argv[1:] == ["records"]:
        RECORDS.write_text(packaged(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
