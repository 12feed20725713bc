"""The memory that each library of a plan needs on its device: from its record where it is built, else from the configuration.

Nothing is fetched for it: of a model on a hub the configuration is what an earlier plan kept in the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbuild.engine.task import Task
from llmbuild.errors import LlmbuildError, StoreError, UsageError, raise_all
from llmbuild.jsontext import parse_json
from llmbuild.packages.expected import expected_record
from llmbuild.packages.memory import MemoryUse, Sizes, memory_of, sizes_in, sizes_of, window_that_fits
from llmbuild.plan.maker import SIDECAR
from llmbuild.quantization.scheme import SCHEMES, Scheme
from llmbuild.targets.compile_part import device_kind
from llmbuild.workspace.manifests import place_of

if TYPE_CHECKING:
    from llmbuild.manifest.project import Package
    from llmbuild.plan.planner import Plan, Verdict
    from llmbuild.workspace.snapshot import Snapshot

SMALLEST_CHUNK = 128
"""A smaller prefill chunk saves little memory and costs much time."""
SMALLER = ("q4f32_1", "q4f16_1", "q3f16_1")
"""The schemes that an error may propose, the one that changes least first."""


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
        params: Mapping[str, Any] = task.params
        scheme = Scheme.from_json(params["scheme"])
        record = _built(snapshot, verdict) or _expected(snapshot, task, scheme)
        if record is None:
            unknown.append(task.label)
            continue
        device = device_kind(params["target"])
        found.append(DeviceMemory(task.model, task.scheme, task.platform, device, record, scheme.has_cpu_kernels))
    return found, unknown


def require_memory(snapshot: Snapshot, plan: Plan) -> None:
    """Raise UsageError, or a MultiError, for the libraries of a plan that need more memory than a package of theirs may."""
    limited = [package for package in snapshot.whole.packages.values() if package.memory is not None]
    if not limited:
        return
    found, _ = device_memory(snapshot, plan)
    libraries = {(one.model, one.scheme, one.platform): one for one in found}
    errors = []
    for package in limited:
        for library in package.libraries:
            one = libraries.get((library.model, library.scheme, library.platform))
            if one is not None and (error := _exceeds(snapshot, package, one)) is not None:
                errors.append(error)
    raise_all(errors)


def _exceeds(snapshot: Snapshot, package: Package, one: DeviceMemory) -> UsageError | None:
    from llmbuild.packages.kinds import package_kind
    from llmbuild.report.memory_text import figures
    from llmbuild.report.units import size

    limit = package.memory
    sizes = sizes_in(package_kind(package.kind), one.record)
    use = one.use(sizes)
    if limit is None or use.total <= limit:
        return None
    about = "about " if use.about else ""
    window = "sliding-window-size" if sizes.rolling else "context-window-size"
    return UsageError(
        f"{one.model} in {one.scheme} on {one.platform} needs {about}{size(use.total)} of memory, and package "
        f"'{package.name}' allows {size(limit)}",
        where=place_of(snapshot.whole, ("package", package.name, "memory")),
        why=f"{figures(use)}, for {window} = {sizes.tokens} and prefill-chunk-size = {sizes.chunk}",
        fix="; or ".join(_cures(snapshot, one, use, sizes, window, limit)),
    )


def _cures(
    snapshot: Snapshot, one: DeviceMemory, use: MemoryUse, sizes: Sizes, window: str, limit: int
) -> Iterator[str]:
    """What makes a library fit, with numbers: each alone suffices.  `window` is the key of its window."""
    where = "in the metadata of the platform or the model"
    tokens = one.window(sizes, limit)
    if tokens >= sizes.chunk:
        yield f"set {window} to {tokens} or less {where}"
    # What the planner records for a smaller chunk is not known before it has run.
    unplanned = dataclasses.replace(one, record={**one.record, "memory_usage": None})
    chunks = [sizes.chunk >> halvings for halvings in range(1, 16) if sizes.chunk >> halvings >= SMALLEST_CHUNK]
    fitting = [(chunk, unplanned.window(dataclasses.replace(sizes, chunk=chunk), limit)) for chunk in chunks]
    alone = next((chunk for chunk, most in fitting if most >= sizes.tokens), None)
    # No chunk is larger than the window.
    both = next(((chunk, most) for chunk, most in fitting if most >= chunk), None)
    if alone is not None:
        yield f"set prefill-chunk-size to {alone}"
    elif both is not None and tokens < sizes.chunk:
        yield f"set prefill-chunk-size to {both[0]} and {window} to {both[1]} or less"
    if sizes.batches:
        batches = [
            size for halvings in range(1, 8) if (size := one.record["max_batch_size"] >> halvings) >= sizes.sequences
        ]
        records = {size: {**unplanned.record, "max_batch_size": size} for size in batches}
        fits = [size for size in batches if dataclasses.replace(one, record=records[size]).use(sizes).total <= limit]
        if fits:
            yield f"set max-batch-size to {fits[0]}"
    lower = next(
        (
            task
            for task in snapshot.tasks
            if (task.kind, task.model, task.scheme, task.platform) == ("lower", one.model, one.scheme, one.platform)
        ),
        None,
    )
    for name in SMALLER:
        record = None if lower is None or name == one.scheme else _expected(snapshot, lower, SCHEMES[name])
        if record is None:
            continue
        other = memory_of(record, one.device, sizes, repacks=SCHEMES[name].has_cpu_kernels)
        # The other's temporaries are estimated; where those of this library are recorded, the other is not taken for better.
        known = 0 if use.about else use.temporaries
        if other.total - other.temporaries + max(other.temporaries, known) <= limit:
            yield f"use quantization {name}"
            break
    yield "allow more"


def _built(snapshot: Snapshot, verdict: Verdict) -> Mapping[str, Any] | None:
    """The record of a library that is in the store."""
    if verdict.output is None or verdict.unbuilt:
        return None
    tree = snapshot.knowledge.tree(verdict.output)
    digest = next((file.digest for file in tree.files if file.path == SIDECAR), None) if tree is not None else None
    if digest is None:
        return None
    try:
        record = parse_json(snapshot.store.cas.get_bytes(digest))
    except (StoreError, ValueError):
        # The build finds the blob damaged too, and makes it again.
        return None
    return record if isinstance(record, Mapping) else None


def _expected(snapshot: Snapshot, lower: Task, scheme: Scheme) -> Mapping[str, Any] | None:
    """The record that a lower task would make in a scheme, without the temporaries."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type
    from llmbuild.models.wrappers import text_config
    from llmbuild.tasks.config import overrides
    from llmbuild.tasks.own import architecture_in
    from llmbuild.workspace.refusals import known_config

    config = next((task for task in snapshot.tasks if task.label == lower.inputs["config"].task), None)
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
