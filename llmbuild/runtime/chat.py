"""A conversation with a model that remembers its turns, as in `llmbuild chat`.

Each turn renders the whole conversation and feeds only the tokens that are not in the KV cache yet, so that a
template may render earlier turns differently from how they were generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llmbuild.runtime.completer import TurnStatistics
from llmbuild.runtime.model import MAX_TOKENS, Model
from llmbuild.runtime.sampling import Sampling


@dataclass(slots=True)
class Chat:
    """A running conversation.  `messages` are (role, content) pairs; the template's own messages come first.

    `system` replaces the template's system message.
    """

    model: Model
    system: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def statistics(self) -> TurnStatistics:
        """Statistics of the last turn."""
        return self.model.statistics

    def say(
        self, text: str, sampling: Sampling, *, seed: int | None = None, max_tokens: int = MAX_TOKENS
    ) -> Iterator[str]:
        """One turn: yields the answer's text as it comes, then keeps question and answer in the conversation.

        A turn that does not finish (an error, Ctrl-C) leaves the conversation as it was.
        """
        turns = [*self.messages, ("user", text)]
        prompt = self.model.render([*turns, ("assistant", None)], self.system)
        answer = ""
        for piece in self.model.complete(prompt, sampling, seed=seed, max_tokens=max_tokens, exact=False):
            answer += piece
            yield piece
        self.messages = [*turns, ("assistant", answer)]
