"""Quantization schemes by name: MLC's presets, and those that a manifest defines or alters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmbuild.errors import did_you_mean
from llmbuild.manifest.measuring import REFERENCE
from llmbuild.manifest.problems import Problems
from llmbuild.manifest.schema import QuantizationTable
from llmbuild.quantization.overrides import Override, layer_ranges
from llmbuild.quantization.scheme import SCHEMES, Scheme

# Names that MLC LLM has and llmbuild does not build.
UNSUPPORTED = {
    "q4f16_ft": "FasterTransformer's layout",
    "e5m2_e5m2_f16": "8-bit floats",
    "e4m3_e4m3_f16": "8-bit floats",
    "e4m3_e4m3_f16_max_calibrate": "8-bit floats",
    "fp8_e4m3fn_bf16_block_scale": "8-bit floats",
    "fp8_e4m3fn_bf16_block_scale_static_activation": "8-bit floats",
}

_DEFAULT_GROUP: Mapping[int, int] = {3: 40, 4: 32, 8: 32}


def unknown_scheme(name: str, tables: Mapping[str, object]) -> tuple[str, str]:
    """The error in a scheme's name, and the fix."""
    known = [*SCHEMES, *(table for table in tables if table not in SCHEMES)]
    if name in UNSUPPORTED:
        return (
            f"quantization '{name}' ({UNSUPPORTED[name]}) is not supported yet",
            f"use one of {', '.join(known)}",
        )
    near = did_you_mean(name, known)
    listed = f"known: {', '.join(known)}"
    return f"unknown quantization '{name}'", f"{near} ({listed})" if near else listed


def resolve_schemes(tables: Mapping[str, QuantizationTable], problems: Problems) -> Mapping[str, Scheme]:
    """Every preset, with the tables of the manifest on top."""
    schemes = dict(SCHEMES)
    for name, table in tables.items():
        scheme = _resolve(name, table, problems)
        if scheme is not None:
            schemes[name] = scheme
    return schemes


def _resolve(name: str, table: QuantizationTable, problems: Problems) -> Scheme | None:
    path = ("quantizations", name)
    if name == REFERENCE:
        problems.add(
            path,
            f"'{name}' cannot be the name of a quantization",
            why="in labels it is what quantized weights are compared with",
            fix="choose another name",
        )
        return None
    if problems.any_broken((*path, key) for key in ("base", "bits", "group-size")):
        return None
    if table.base is None and name not in SCHEMES:
        if name in UNSUPPORTED:
            what, fix = unknown_scheme(name, {})
            problems.add(path, what, fix=fix)
        else:
            problems.add(
                path,
                f"'{name}' is not a preset, and the table does not say what it is based on",
                fix=f'add base = "…" with one of {", ".join(SCHEMES)}',
            )
        return None
    base_name = name if table.base is None else table.base
    base = SCHEMES.get(base_name)
    if base is None:
        what, fix = unknown_scheme(base_name, {})
        problems.add((*path, "base"), what, fix=fix)
        return None
    altered = _alter(base, name, table, problems)
    return None if altered is None else _with_overrides(altered, table, problems)


def _with_overrides(scheme: Scheme, table: QuantizationTable, problems: Problems) -> Scheme:
    """The scheme with the table's overrides, in its own groups where these suit their bits and the kernels for CPUs."""
    found = []
    for index, one in enumerate(table.overrides):
        path = ("quantizations", scheme.name, "overrides", index)
        try:
            layer_ranges(one.layers or "0")
        except ValueError:
            problems.add(
                (*path, "layers"), f"'{one.layers}' does not say which layers", fix='write "7", "0-3" or "0-3,7"'
            )
            continue
        group = 0 if one.bits == 0 else _DEFAULT_GROUP[one.bits]
        if one.bits and scheme.group_size and scheme.group_size % (32 // one.bits) == 0:
            kept = replace(scheme, bits=one.bits, overrides=())
            group = kept.group_size if kept.has_cpu_kernels or one.bits == scheme.bits else group
        found.append(Override(one.match, one.bits, group, one.layers))
    return replace(scheme, overrides=tuple(found))


def _alter(base: Scheme, name: str, table: QuantizationTable, problems: Problems) -> Scheme | None:
    """The base with the table's changes."""
    path = ("quantizations", name)
    if base.comes_packed and not _fits_packed(base, table, path, problems):
        return None
    bits = base.bits if table.bits is None else table.bits
    if bits == 0:
        for key, value in (("group-size", table.group_size), ("layout", table.layout), ("method", table.method)):
            if value is not None:
                problems.add((*path, key), "means nothing for a scheme with 0 bits", fix=f"remove {key}, or set bits")
        return replace(
            base, name=name, bits=0, dtype=table.dtype or base.dtype, group_size=0, layout="NK", method="round"
        )
    group = table.group_size or (base.group_size if bits == base.bits else _DEFAULT_GROUP[bits])
    words = 32 // bits
    if group % words:
        key = "group-size" if table.group_size is not None else "bits"
        problems.add(
            (*path, key),
            f"a group of {group} does not fill whole 32-bit words of {words} {bits}-bit weights",
            fix=f"give a group-size that is a multiple of {words}",
        )
        return None
    return Scheme(
        name=name,
        bits=bits,
        dtype=table.dtype or base.dtype,
        group_size=group,
        layout=table.layout or base.layout,
        quantize_embedding=base.quantize_embedding if table.quantize_embedding is None else table.quantize_embedding,
        quantize_head=base.quantize_head if table.quantize_head is None else table.quantize_head,
        method=table.method or base.method,
    )


def _fits_packed(base: Scheme, table: QuantizationTable, path: tuple[str, ...], problems: Problems) -> bool:
    """Whether a table leaves alone the values that packed weights determine."""
    chosen = [
        key
        for key in ("bits", "layout", "quantize_embedding", "quantize_head", "method")
        if getattr(table, key) is not None
    ]
    chosen += ["overrides"] if table.overrides else []
    for key in (name.replace("_", "-") for name in chosen):
        what = f"{base.name} takes weights that come packed, so {key} is not to be chosen"
        problems.add((*path, key), what, fix=f"remove {key}; group-size and dtype can be set")
    return not chosen
