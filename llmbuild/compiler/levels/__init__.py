"""Kernels for several levels of a CPU in one library, which chooses among them where it runs."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.compiler.levels.aarch64 import DOTPROD, I8MM
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.levels.x86_64 import AVX512_VNNI, AVX_VNNI

LEVELS: Mapping[str, Level] = {level.name: level for level in (AVX512_VNNI, AVX_VNNI, I8MM, DOTPROD)}
"""By name; the best first."""
