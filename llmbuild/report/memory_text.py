"""What libraries need on their devices, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmbuild.canonical import Json
from llmbuild.packages.memory import MemoryUse
from llmbuild.report.style import Style, wrapped
from llmbuild.report.units import size


@dataclass(frozen=True, slots=True)
class Line:
    """A library's model, scheme and platform, the tokens of its window, and its memory."""

    model: str
    scheme: str
    platform: str
    tokens: int
    use: MemoryUse


def figures(use: MemoryUse) -> str:
    """`1.1 GB = weights 772.6 MB + cache 290.7 MB + temporaries about 75.0 MB`."""
    about = "about " if use.about else ""
    return (
        f"{about}{size(use.total)} = weights {size(use.weights)} + cache {size(use.kv_cache)} + "
        f"temporaries {about}{size(use.temporaries)}"
    )


def memory_text(lines: Sequence[Line], unknown: Sequence[str], style: Style) -> str:
    """Two lines a library, and those of which nothing is known."""
    text = []
    for one in lines:
        text.append(f"{one.model}, {one.scheme}, {one.platform}: {one.tokens} tokens")
        text += wrapped(figures(one.use), 2, style)
    for label in unknown:
        text.append(label)
        text += wrapped(
            "not known before the model is fetched, or before it is built where its weights come packed", 2, style
        )
    return "\n".join(text) if text else "no libraries"


def memory_json(lines: Sequence[Line], unknown: Sequence[str]) -> Json:
    """The same in bytes."""
    return {
        "libraries": [
            {
                "model": one.model,
                "quantization": one.scheme,
                "platform": one.platform,
                "tokens": one.tokens,
                "weights": one.use.weights,
                "kv-cache": one.use.kv_cache,
                "temporaries": one.use.temporaries,
                "total": one.use.total,
                "largest-buffer": one.use.largest,
                "about": one.use.about,
            }
            for one in lines
        ],
        "unknown": list(unknown),
    }
