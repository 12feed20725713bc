"""The graph: a project and what was observed of the world become tasks, with exactly the sharing that the work allows.

    fetch[model] -- inspect[model] --+-- quantize[model, scheme] ------------> dist/<model>-<scheme>-MLC/
                                     +-- config[model, scheme] --------------> dist/<model>-<scheme>-MLC/
                                           +-- lower[model, scheme, platform] -- link[…] --> dist/libs/…

    all of these, for some models and platforms -- package[NAME] -- dist/<NAME>/   (join[NAME] makes one archive of several)

quantize and config take from inspect what the tensors decide, and from fetch itself the files that they need.
One model, one scheme and six platforms make one fetch, one inspect, one quantize, one config, six lower and six link.  The
key of a lower task names no model: two models of one architecture have equal lower actions, and the second finds the first's
result.  Every library for browsers is linked with the objects of one `runtime[emcc]`, which depends on nothing of a project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmbuild.engine.kind import TaskKind
from llmbuild.engine.labels import make_label
from llmbuild.engine.task import Task
from llmbuild.manifest.project import Combination, Project
from llmbuild.plan.maker import WITH_RUNTIME, compiler_name, has_sidecar, sidecar
from llmbuild.plan.measuring import MeasuringMaker, calibrating_labels
from llmbuild.plan.observed import Observed
from llmbuild.plan.packages import package_labels


def expand(
    project: Project,
    observed: Observed,
    kinds: Mapping[str, TaskKind],
    compile_fields: tuple[str, ...],
    measured: Iterable[str] = (),
) -> tuple[Task, ...]:
    """Every task of the project, each after the tasks it depends on.

    `compile_fields` are the fields of mlc-chat-config.json that a compiler reads, `measured` the labels of the tasks that
    measure and that something needs (of `plan.measuring.measuring_labels`).  Raises ValueError when two cells of
    the matrix are the same one, and KeyError when a kind declares other parameters than the graph has: both are
    bugs, because the manifest rejects such input before.
    """
    maker = MeasuringMaker(project, observed, kinds, compile_fields)
    for cell in project.matrix:
        maker.add_cell(cell)
    maker.add_labels(measured)
    for package in project.packages.values():
        maker.add_package(package)
    return tuple(maker.tasks.values())


def results(project: Project, cell: Combination) -> list[str]:
    """What a cell of the matrix puts into the project, as paths there: model directory, library and record."""
    record = [sidecar(cell)] if has_sidecar(project.platforms[cell.platform]) else []
    return [*([cell.weights] if cell.weights else []), cell.library, *record]


def labels(project: Project) -> frozenset[str]:
    """The labels of all tasks of a project, computed without observing the world (`expand` makes the same)."""
    found = set(calibrating_labels(project))
    for cell in project.matrix:
        model, platform = project.models[cell.model], project.platforms[cell.platform]
        pair = (cell.model, cell.scheme)
        found.add(make_label("config", *pair))
        found |= {make_label(kind, *pair, cell.platform) for kind in ("lower", "link")}
        if platform.artifact in WITH_RUNTIME:
            found.add(make_label("runtime", compiler_name(platform)))
        if model.source is not None:
            found |= {make_label(kind, cell.model) for kind in ("fetch", "inspect")} | {make_label("quantize", *pair)}
            found |= set() if model.adapter is None else {make_label("fetch", cell.model, "adapter")}
    for package in project.packages.values():
        found |= package_labels(package)
    return frozenset(found)
