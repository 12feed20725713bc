"""What GGUF files of a family are like, where its description for other files does not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmbuild.canonical import Json
from llmbuild.models.gguf.values import GgufValues

Reader = Callable[[GgufValues], Json]


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """A family's files have `name` as general.architecture, or one of `others`: models of text and images whose text is of the
    family, where the keys in `unused` say nothing of a text alone.  Of families with the same name, one whose `when` is true is
    meant, else the one without.

    Tensors have the names that llama.cpp gives to each place of the decoder; `before_mlp` is that of the norm there.  With
    `neighbours` llama.cpp's converter put rows of q and k that RoPE turns together next to each other, where the checkpoint has
    them half a head apart.

    Values of config.json follow from the keys that GGUF has for all architectures, by the keys that the configuration class has;
    `keys` reads those that are an architecture's own, and `scaling` those within `rope_scaling`.  `window` is llama.cpp's window
    where a file names none.  `pre` is how text is cut where a file does not say it (`tokenizer.ggml.pre`).
    """

    name: str
    neighbours: bool = False
    before_mlp: str = "ffn_norm"
    keys: Mapping[str, Reader] = field(default_factory=dict)
    scaling: Mapping[str, Reader] = field(default_factory=dict)
    when: Callable[[GgufValues], bool] | None = None
    window: int = 0
    pre: str = "gpt-2"
    others: tuple[str, ...] = ()
    unused: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of general.architecture."""
        return (self.name, *self.others)
