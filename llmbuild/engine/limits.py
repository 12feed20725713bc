"""Sizes and ages as a person writes them: `10GB`, `500 MB`, `30d`, `12h`."""

from __future__ import annotations

import re

from llmbuild.errors import UsageError

_SIZES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SHOWN = 60
_AGES = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NUMBER = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of `10GB` (decimal, as `cache stats` prints them), `10GiB` (binary) or `1000`.  Raises UsageError."""
    return round(_parse(text, _SIZES, "a size", "write it as 10GB, 500MB or 8GiB"))


def parse_memory(text: str) -> int:
    """Bytes of memory as `parse_size` reads them, at least one: nothing runs in none.  Raises UsageError."""
    size = parse_size(text)
    if size < 1:
        raise UsageError(f"'{text}' is no memory that anything runs in", fix="write what there is, such as 8GB")
    return size


def parse_age(text: str) -> float:
    """Seconds of `30d`, `12h`, `10m`, `45s` or `2w`.  Raises UsageError."""
    return _parse(text, _AGES, "an age", "write it as 30d, 12h or 10m")


def _parse(text: str, units: dict[str, int], what: str, fix: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    unit = units.get(found[2].lower()) if found is not None else None
    if found is None or unit is None:
        raise UsageError(f"'{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}' is not {what}", fix=fix)
    return float(found[1]) * unit
