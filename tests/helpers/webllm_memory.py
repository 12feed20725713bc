"""WebLLM's figures of memory, which are typed by hand, beside those that llmbuild computes for the presets of the same models.

`python -m tests.helpers.webllm_memory` prints a line for each record of the list in the npm package that has a preset.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmbuild.models.family import Overrides
from llmbuild.models.presets import preset
from llmbuild.models.registry import family, infer_model_type
from llmbuild.packages.expected import expected_record
from llmbuild.packages.memory import memory_of, sizes_of, web_figures
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.browser import web_llm
from tests.helpers.webllm_models import models, split

CHUNK = 1024
"""The prefill chunk of nearly all of WebLLM's libraries ("cs1k" in their names)."""


@dataclass(frozen=True)
class Compared:
    """A record's id, and the figures of WebLLM and of llmbuild for it."""

    name: str
    theirs: dict[str, Any]
    ours: dict[str, Any]

    @property
    def ratio(self) -> float:
        ratio: float = self.ours["vram_required_MB"] / self.theirs["vram_required_MB"]
        return ratio


def compared() -> Iterator[Compared]:
    """The records that say how much memory they need and have a preset."""
    presets = {model.name: model.preset for model in models()}
    for record in _records():
        name, scheme = split(record["model_id"])
        chosen = presets.get(name)
        if chosen is None or "low_resource_required" not in record:
            continue
        config = preset(chosen)
        context = record["overrides"]["context_window_size"]
        architecture = family(infer_model_type(config))
        overrides = Overrides(context_window_size=context, prefill_chunk_size=CHUNK, sliding_window_size=-1)
        expected = expected_record(architecture, architecture.configure(config, overrides), SCHEMES[scheme])
        use = memory_of(expected, "webgpu", sizes_of(expected))
        yield Compared(record["model_id"], record, dict(web_figures(use)))


def _records() -> list[dict[str, Any]]:
    place = web_llm()
    assert place is not None, "needs WebLLM's package of npm"
    script = f"import({json.dumps(str(place / 'lib' / 'index.js'))}).then(package => {{ " + (
        "console.log(JSON.stringify(package.prebuiltAppConfig.model_list)); })"
    )
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def main() -> None:
    found = list(compared())
    for one in sorted(found, key=lambda each: each.ratio):
        low = one.theirs["low_resource_required"], one.ours["low_resource_required"]
        ours, theirs = one.ours["vram_required_MB"], one.theirs["vram_required_MB"]
        print(f"{one.ratio:5.2f}  {ours:9.2f}  {theirs:9.2f}  {low[1]!s:5}  {low[0]!s:5}  {one.name}")
    same = sum(one.theirs["low_resource_required"] == one.ours["low_resource_required"] for one in found)
    print(
        f"{len(found)} records, median {statistics.median(one.ratio for one in found):.3f}, low_resource agrees in {same}"
    )
    for least, most in ((0.95, 1.05), (0.9, 1.1), (0.8, 1.2)):
        print(f"{sum(least <= one.ratio <= most for one in found)} within {least} to {most}")


if __name__ == "__main__":
    main()
