"""Labels of tasks, as a person types them: `lower[smollm2, q4f32_1, native]`, a kind and what the task is of."""

from __future__ import annotations


def make_label(kind: str, *of: str) -> str:
    """The label of a kind's task; `split_label` is the inverse."""
    return f"{kind}[{', '.join(of)}]"


def split_label(label: str) -> tuple[str, tuple[str, ...]]:
    """The kind of a label and what its task is of; nothing for a text without brackets."""
    kind, _, of = label.partition("[")
    return kind, tuple(of.removesuffix("]").split(", ")) if of else ()
