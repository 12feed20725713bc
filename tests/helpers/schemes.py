"""Schemes by what they do to a checkpoint."""

from __future__ import annotations

from llmbuild.quantization.scheme import SCHEMES

QUANTIZING = [name for name, scheme in SCHEMES.items() if not scheme.comes_packed]
"""The presets that take plain weights."""
