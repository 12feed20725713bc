"""Whether a checkpoint's list of tensors is that of a model: one message for each cause, whatever the number of tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmbuild.errors import InputError, LlmbuildError, did_you_mean, raise_all
from llmbuild.printable import several

if TYPE_CHECKING:
    from llmbuild.quantization.ports import PlainParameter, TensorHeader, TensorSource


_LAYER = re.compile(r"(.+?\.)(\d{1,6})\.")

_FIX_TYPE = "check that model-type and config.json belong to this checkpoint"


def check(
    checkpoint: TensorSource,
    parameters: Sequence[PlainParameter],
    unused: Callable[[str], bool],
    vocabulary: str = "vocab_size",
) -> None:
    """Compare the checkpoint's list of tensors with the model's, reading none of them.

    `vocabulary` is the key of config.json that says how many tokens there are.  Raises InputError, or MultiError of one error for
    each cause: weights that are quantized, another number of layers, no head, missing tensors, unexpected ones, and shapes that
    do not fit.
    """
    tensors = checkpoint.tensors
    present = [parameter for parameter in parameters if all(source in tensors for source in parameter.sources)]
    # Packed weights have names and shapes of their own, which would be reported as well.
    raise_all(_wrong_dtypes(checkpoint, present))
    expected: dict[str, PlainParameter] = {}
    for parameter in parameters:
        for source in parameter.sources:
            expected.setdefault(source, parameter)
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected and not unused(name)]
    errors = _other_layers(checkpoint, list(expected), missing, unexpected)
    if missing and all(expected[name].role == "head" for name in missing):
        errors.append(_no_head(missing[0], unexpected))
    elif len(missing) == len(expected) and missing:
        errors.append(_nothing(missing, list(tensors)))
    else:
        errors += _missing(missing, checkpoint)
        errors += _unexpected(unexpected, checkpoint)
    errors += _wrong_shapes(checkpoint, present, vocabulary)
    raise_all(errors)


def _other_layers(
    checkpoint: TensorSource, expected: Sequence[str], missing: list[str], unexpected: list[str]
) -> list[LlmbuildError]:
    """The error for another number of layers, whose names are taken off the lists."""
    layers = {name: layer for name in expected if (layer := _layer(name)) is not None}
    prefix = next(iter(layers.values()), ("", 0))[0]
    wanted = 1 + max((number for start, number in layers.values() if start == prefix), default=-1)
    there = [
        number
        for name in checkpoint.tensors
        if (layer := _layer(name)) is not None and layer[0] == prefix
        for number in layer[1:]
    ]
    found = 1 + max(there, default=-1)
    if wanted == found or not there or not prefix:
        return []
    names = unexpected if found > wanted else missing
    beyond = [
        name
        for name in names
        if (layer := _layer(name)) is not None and layer[0] == prefix and layer[1] >= min(wanted, found)
    ]
    names[:] = [name for name in names if name not in set(beyond)]
    why = f"{_listed(beyond)} {'are' if len(beyond) > 1 else 'is'} {'beyond' if found > wanted else 'missing for'} the latter"
    return [
        InputError(
            f"the checkpoint has {found} layers, and the configuration {wanted}",
            where=checkpoint.location(beyond[0]) if found > wanted else None,
            why=why,
            fix=_FIX_TYPE,
        )
    ]


def _layer(name: str) -> tuple[str, int] | None:
    match = _LAYER.match(name)
    return None if match is None else (match[1], int(match[2]))


def _no_head(name: str, unexpected: Sequence[str]) -> InputError:
    there = f"; it has {_listed(unexpected)}" if unexpected else ""
    return InputError(
        f"the checkpoint has no head for text: tensor '{name}' is missing",
        why=f"it was saved by a model class that has none{there}",
        fix="name a checkpoint that was saved by AutoModelForCausalLM",
    )


def _nothing(missing: Sequence[str], there: Sequence[str]) -> InputError:
    return InputError(
        f"none of the {len(missing)} tensors that the architecture needs is there",
        why=f"it needs {_listed(missing)}; the checkpoint has {_listed(there)}",
        fix=_FIX_TYPE,
    )


def _missing(names: Sequence[str], checkpoint: TensorSource) -> list[LlmbuildError]:
    if not names:
        return []
    if len(names) > 1:
        what, why = f"{len(names)} tensors are missing", f"the architecture needs {_listed(names)}"
        return [InputError(what, why=why, fix=_FIX_TYPE)]
    why = did_you_mean(names[0], checkpoint.tensors.keys()) or "the architecture needs it"
    return [InputError(f"tensor '{names[0]}' is missing", why=why, fix=_FIX_TYPE)]


def _unexpected(names: Sequence[str], checkpoint: TensorSource) -> list[LlmbuildError]:
    if not names:
        return []
    one = len(names) == 1
    return [
        InputError(
            f"unexpected tensor '{names[0]}'" if one else f"{len(names)} unexpected tensors",
            where=checkpoint.location(names[0]),
            why=f"the architecture has no parameter that is made from {'it' if one else _listed(names)}",
            fix=_FIX_TYPE,
        )
    ]


def _wrong_dtypes(checkpoint: TensorSource, parameters: Sequence[PlainParameter]) -> list[LlmbuildError]:
    """One error for plain weights and one for packed numbers."""
    errors: list[LlmbuildError] = []
    for packed in (True, False):
        wrong = [
            (source, parameter)
            for parameter in parameters
            if (parameter.dtype == "uint32") is packed
            for source in parameter.sources
            if checkpoint.tensors[source].dtype not in parameter.source_dtypes
        ]
        if wrong:
            source, parameter = wrong[0]
            more = f", and so do {len(wrong) - 1} others" if len(wrong) > 1 else ""
            errors.append(
                InputError(
                    f"tensor '{source}' holds no {'packed numbers' if packed else 'plain floating-point weights'}{more}",
                    where=checkpoint.location(source),
                    why=f"it is {checkpoint.tensors[source].dtype}; expected is one of {', '.join(parameter.source_dtypes)}",
                    fix=None if packed else "name the checkpoint that it was made from as the source",
                )
            )
    return errors


def _wrong_shapes(
    checkpoint: TensorSource, parameters: Sequence[PlainParameter], vocabulary: str
) -> list[LlmbuildError]:
    tensors = checkpoint.tensors
    wrong: list[tuple[str, PlainParameter]] = []
    for parameter in parameters:
        shapes = [tensors[source].shape for source in parameter.sources]
        if not _join_to(shapes, parameter.axis, parameter.stored_shape):
            found = " and ".join(f"'{source}' {list(tensors[source].shape)}" for source in parameter.sources)
            wrong.append((found, parameter))
    if not wrong:
        return []
    found, parameter = wrong[0]
    rows = _vocabulary(tensors, parameters, [each for _, each in wrong])
    joined = "stacked to" if len(parameter.sources) > 1 else "of shape"
    others = ""
    if len(wrong) > 1:
        do = "does" if len(wrong) == 2 else "do"
        others = f"; {_listed([each.name for _, each in wrong[1:]])} {do} not fit either"
    return [
        InputError(
            f"shape mismatch: {found}",
            where=checkpoint.location(parameter.sources[0]),
            why=f"the configuration wants {parameter.name} {joined} {list(parameter.shape)}{others}",
            fix=_FIX_TYPE if rows is None else f"set {vocabulary} = {rows} in config.json",
        )
    ]


def _vocabulary(
    tensors: Mapping[str, TensorHeader], parameters: Sequence[PlainParameter], wrong: Sequence[PlainParameter]
) -> int | None:
    """The number of rows that embedding, head and the head's bias have, where nothing else differs: embeddings are often padded.

    The tokens' embedding is a model's first parameter; one of positions follows it.
    """
    if wrong[0] is not parameters[0]:
        return None
    rows: set[int] = set()
    for parameter in wrong:
        shape = tensors[parameter.sources[0]].shape
        if parameter.shape[0] != wrong[0].shape[0] or shape[1:] != parameter.shape[1:]:
            return None
        rows.add(shape[0])
    return rows.pop() if len(rows) == 1 else None


def _join_to(shapes: Sequence[tuple[int, ...]], axis: int, whole: tuple[int, ...]) -> bool:
    """Whether tensors of these shapes, joined on an axis, have the shape `whole`."""
    if any(len(shape) != len(whole) for shape in shapes):
        return False
    joined = sum(shape[axis] for shape in shapes)
    return all((*shape[:axis], joined, *shape[axis + 1 :]) == whole for shape in shapes)


def _listed(names: Sequence[str]) -> str:
    return several([f"'{name[:200]}'" for name in names])
