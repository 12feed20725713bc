"""Choose the next token: penalties, temperature and top-p, as MLC's runtimes apply them, in that order.

Presence and frequency penalties are subtracted from the logits of tokens that were generated before, then the
repetition penalty divides positive logits and multiplies negative ones.  Temperature 0 takes the largest logit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.names import SAMPLING_UNSET
from llmbuild.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

SAMPLING_NAMES = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling values; the defaults are those of mlc-chat-config.json."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name in SAMPLING_NAMES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise UsageError(f"{name.replace('_', '-')} must be a number, not {value!r:.80}")
        if self.temperature < 0:
            raise UsageError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0 <= self.top_p <= 1:
            raise UsageError(f"top-p must be between 0 and 1, not {self.top_p}")
        if self.repetition_penalty <= 0:
            raise UsageError(f"repetition-penalty must be more than 0, not {self.repetition_penalty}")

    @staticmethod
    def from_config(config: Mapping[str, Any], **given: float | None) -> Sampling:
        """The values of mlc-chat-config.json with those that the user gave on top, or `UNSET` where nobody gave any."""
        values = {name: config[name] for name in SAMPLING_NAMES if config.get(name) is not None}
        if is_unset(config, **given):
            values |= UNSET
        return replace(Sampling(**values), **{name: value for name, value in given.items() if value is not None})


UNSET: Mapping[str, float] = {"temperature": 0.7, "top_p": 0.95}
"""For a model of which nobody says how to sample: MLC's defaults, both 1, draw unlikely words as often as the model thinks."""

UNSET_NOTE = "neither the model nor its manifest says how to sample: temperature 0.7 and top-p 0.95 are taken"


def is_unset(config: Mapping[str, Any], **given: float | None) -> bool:
    """Whether neither the model nor the user says how to sample."""
    return config.get(SAMPLING_UNSET) is True and all(given.get(name) is None for name in UNSET)


def checked_seed(seed: int | None) -> int | None:
    """The seed; raises UsageError for a negative one."""
    if seed is not None and seed < 0:
        raise UsageError(f"a seed must be 0 or more, not {seed}")
    return seed


class Sampler:
    """Draws tokens for one sequence; the same seed and logits give the same tokens.  Raises UsageError for a negative seed."""

    def __init__(self, sampling: Sampling, seed: int | None = None) -> None:
        import numpy as np

        self.sampling = sampling
        self._random = np.random.default_rng(checked_seed(seed))
        self._counts: dict[int, int] = {}

    def next(self, logits: np.ndarray) -> int:
        """The next token from logits [vocab], which are left as they are."""
        token = self._choose(self._penalize(logits))
        self._counts[token] = self._counts.get(token, 0) + 1
        return token

    def _penalize(self, logits: np.ndarray) -> np.ndarray:
        import numpy as np

        sampling = self.sampling
        if not self._counts or (
            sampling.presence_penalty == 0 and sampling.frequency_penalty == 0 and sampling.repetition_penalty == 1
        ):
            return logits
        result = logits.copy()
        tokens = np.fromiter(self._counts.keys(), dtype=np.int64)
        counts = np.fromiter(self._counts.values(), dtype=np.float32)
        seen = result[tokens] - sampling.presence_penalty - counts * sampling.frequency_penalty
        factor = np.float32(sampling.repetition_penalty)
        result[tokens] = np.where(seen < 0, seen * factor, seen / factor)
        return result

    def _choose(self, logits: np.ndarray) -> int:
        import numpy as np

        sampling = self.sampling
        if sampling.temperature == 0 or sampling.top_p == 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / sampling.temperature
        weights = np.exp(scaled - scaled.max())
        probabilities = weights / weights.sum()
        order = np.argsort(-probabilities, kind="stable")
        cumulative = np.cumsum(probabilities[order])
        # The smallest set of tokens whose probability reaches top-p, and never less than one token.
        keep = int(np.searchsorted(cumulative, sampling.top_p)) + 1
        kept = cumulative[: min(keep, len(cumulative))]
        draw = self._random.random() * kept[-1]
        return int(order[int(np.searchsorted(kept, draw, side="right").clip(0, len(kept) - 1))])
