"""The memory that each library of a plan needs on its device: from its record where it is built, else from the configuration.

Nothing is fetched for it: of a model on a hub the configuration is what an earlier plan kept in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbuild.engine.task import Task
from llmbuild.errors import LlmbuildError, StoreError
from llmbuild.jsontext import parse_json
from llmbuild.packages.expected import expected_record
from llmbuild.packages.memory import MemoryUse, Sizes, memory_of, sizes_of, window_that_fits
from llmbuild.quantization.scheme import Scheme
from llmbuild.targets.compile_part import device_kind

if TYPE_CHECKING:
    from llmbuild.plan.planner import Plan, Verdict
    from llmbuild.workspace.snapshot import Snapshot

RECORD = "metadata.json"


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """A library by its model, scheme and platform, with its record (`llmbuild.packages.memory.Record`), which is an expected
    one where it has no `memory_usage`."""

    model: str
    scheme: str
    platform: str
    device: str
    record: Mapping[str, Any]
    repacks: bool

    def use(self, sizes: Sizes | None = None) -> MemoryUse:
        """With a full window, or a cache of these sizes."""
        return memory_of(self.record, self.device, sizes or sizes_of(self.record), repacks=self.repacks)

    def window(self, sizes: Sizes, limit: int) -> int:
        """The most tokens with which it needs at most `limit` bytes."""
        return window_that_fits(self.record, self.device, sizes, limit, repacks=self.repacks)


def device_memory(snapshot: Snapshot, plan: Plan) -> tuple[list[DeviceMemory], list[str]]:
    """The libraries of a plan whose memory is known, in its order, and the labels of those of which nothing is known: that is
    so where the configuration comes with a fetch, and of weights that come packed."""
    found, unknown = [], []
    for verdict in plan.verdicts:
        task = verdict.task
        if task.kind != "lower":
            continue
        record = _built(snapshot, verdict) or _expected(snapshot, task)
        if record is None:
            unknown.append(task.label)
            continue
        params: Mapping[str, Any] = task.params
        device = device_kind(params["target"])
        repacks = Scheme.from_json(params["scheme"]).has_cpu_kernels
        found.append(DeviceMemory(task.model, task.scheme, task.platform, device, record, repacks))
    return found, unknown


def _built(snapshot: Snapshot, verdict: Verdict) -> Mapping[str, Any] | None:
    """The record of a library that is in the store."""
    if verdict.output is None or verdict.unbuilt:
        return None
    tree = snapshot.knowledge.tree(verdict.output)
    digest = next((file.digest for file in tree.files if file.path == RECORD), None) if tree is not None else None
    if digest is None:
        return None
    try:
        record = parse_json(snapshot.store.cas.get_bytes(digest))
    except (StoreError, ValueError):
        # The build finds the blob damaged too, and makes it again.
        return None
    return record if isinstance(record, Mapping) else None


def _expected(snapshot: Snapshot, lower: Task) -> Mapping[str, Any] | None:
    """The record that a lower task would make, without the temporaries."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type
    from llmbuild.models.wrappers import text_config
    from llmbuild.tasks.config import overrides
    from llmbuild.tasks.own import architecture_in
    from llmbuild.workspace.refusals import known_config

    config = next((task for task in snapshot.tasks if task.label == lower.inputs["config"].task), None)
    scheme = Scheme.from_json(lower.params["scheme"])  # type: ignore[arg-type]
    if config is None or scheme.comes_packed:
        return None
    observed = snapshot.world.observed
    model = snapshot.whole.models[lower.model]
    params: Mapping[str, Any] = config.params
    given: Mapping[str, Any] = lower.params
    try:
        content = known_config(model, config, observed.sources.get(lower.model), snapshot.store)
        if content is None:
            return None
        source = text_config(content)
        architecture = architecture_in(config.params, config.hints) or family(
            params["model-type"] or infer_model_type(source)
        )
        configured = architecture.configure(source, overrides(params["metadata"]), ignore=params["ignore-keys"])
        lowered = architecture.restore(dict(configured.to_json()), Overrides(**given["overrides"]))
    except LlmbuildError:
        # What is wrong with it is said of the tasks that would refuse it.
        return None
    return expected_record(architecture, lowered, scheme)
