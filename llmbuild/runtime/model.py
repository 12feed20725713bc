"""A loaded model: the result of `llmbuild.load`, on which `llmbuild chat` runs."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict, Unpack, cast

from llmbuild.conversation.prompt import Message as Turn
from llmbuild.conversation.prompt import prefix_token_ids, render_prompt
from llmbuild.errors import UsageError
from llmbuild.runtime.chat_config import read_chat_config
from llmbuild.runtime.completer import Completer, TurnStatistics, never
from llmbuild.runtime.libraries import find_library
from llmbuild.runtime.library import Library, configure_threads, load_library
from llmbuild.runtime.messages import Message, turns_of
from llmbuild.runtime.sampling import UNSET_NOTE, Sampler, Sampling, checked_seed, is_unset
from llmbuild.runtime.stream import TextStream
from llmbuild.runtime.tokenizer import encode, load_tokenizer, special_ids
from llmbuild.runtime.weights import check_parameters, check_sizes, load_parameters, read_tensor_index

if TYPE_CHECKING:
    import numpy as np

MAX_TOKENS = 1024
"""The default length limit of an answer."""

Prompt = str | Sequence[int] | Sequence[Message]
"""A user's text, token ids that are continued as they are, or a conversation."""


class Options(TypedDict):
    """How an answer is drawn: the keywords of `Model.stream`, with the defaults of the model's mlc-chat-config.json.

    Where neither the model nor the call says how to sample, temperature 0.7 and top-p 0.95 are taken, with one warning.
    Temperature 0 takes the likeliest token each time, `stop` are texts that end the answer besides the model's own, and the
    same `seed` draws the same answer again.
    """

    temperature: NotRequired[float | None]
    top_p: NotRequired[float | None]
    presence_penalty: NotRequired[float | None]
    frequency_penalty: NotRequired[float | None]
    repetition_penalty: NotRequired[float | None]
    max_tokens: NotRequired[int]
    stop: NotRequired[str | Sequence[str]]
    seed: NotRequired[int | None]


class Model:
    """A library with its weights, its tokenizer and one KV cache.

    Each answer depends on its arguments alone, and not on earlier prompts.  A model answers one prompt at a time: when
    another begins, an unfinished stream ends with an error.  `activations` says how the library rounds the input of products with
    packed weights, None for not at all.  Every method raises UsageError once the model is closed.
    """

    def __init__(
        self, directory: Path, library: Library, parameters: Sequence[Any], *, seed: int | None, context: int | None
    ) -> None:
        import numpy as np

        # Read again later, when the process may have another working directory.
        self.directory = Path(os.path.abspath(directory))  # noqa: PTH100
        self.library = Path(os.path.abspath(library.path))  # noqa: PTH100
        self.config: Mapping[str, Any] = read_chat_config(directory)
        self.activations: str | None = library.metadata.get("activations")
        eos = self.config["eos_token_id"]
        template = self.config["conv_template"]
        self._stop = {*(eos if isinstance(eos, list) else [eos]), *template["stop_token_ids"]} - {None}
        self._told = False
        self._seeds = np.random.default_rng(seed)
        self._completer = Completer(library, parameters, self.config["active_vocab_size"], context)

    @classmethod
    def open(
        cls,
        directory: Path,
        library: Path | None = None,
        *,
        threads: int | None = None,
        seed: int | None = None,
        context: int | None = None,
    ) -> Self:
        """Load a model directory and its library, by default the one beside it that this machine can load.

        Raises UsageError for a path that is no model directory, when no library or more than one fits, and for a library that
        cannot be loaded here; VerifyError when library and weights do not belong together or are damaged; StoreError for
        files that cannot be read; InputError when the configuration's template is none; ToolchainError for another TVM.
        """
        if context is not None and context < 1:
            raise UsageError(f"the context must be 1 or more tokens, not {context}")
        checked_seed(seed)
        read_chat_config(directory)
        index = read_tensor_index(directory)
        check_sizes(directory, index)
        path = find_library(directory) if library is None else library
        configure_threads(threads)
        loaded = load_library(path)
        check_parameters(loaded, directory, index)
        return cls(directory, loaded, load_parameters(loaded, directory), seed=seed, context=context)

    def close(self) -> None:
        """Free the weights and the cache.  A second call does nothing."""
        self._completer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llmbuild model {self.directory.name}, {self.library.name}>"

    @property
    def context(self) -> int:
        """The tokens that a prompt and its answer may have together."""
        return self._completer.context

    @property
    def vocab_size(self) -> int:
        """The rows of the logits; those after the tokenizer's last token are padding, and never drawn."""
        size: int = self.config["vocab_size"]
        return size

    @property
    def statistics(self) -> TurnStatistics:
        """Tokens and seconds of the latest answer, and why it ended."""
        return self._completer.statistics

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> str:
        """The answer to a user's text or a conversation, or the continuation of token ids.

        Raises UsageError for a prompt that leaves no room in the context and for options out of range, and InputError where
        text is needed and the model has no tokenizer, or the template lacks a role.
        """
        with self._completer.lock:
            return "".join(self.stream(prompt, **options))

    def stream(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        repetition_penalty: float | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """The pieces of `generate`'s result as they are generated; a piece has whole characters only.

        Raises what `generate` raises, here and not where the first piece is read; and UsageError where a piece is read after
        another answer has begun.
        """
        self._completer.require_open()
        given = {
            "temperature": temperature,
            "top_p": top_p,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "repetition_penalty": repetition_penalty,
        }
        sampling = Sampling.from_config(self.config, **given)
        if not self._told and is_unset(self.config, **given):
            self._told = True
            warnings.warn(UNSET_NOTE, stacklevel=2)
        if max_tokens < 1:
            raise UsageError(f"max_tokens must be 1 or more, not {max_tokens}")
        if isinstance(prompt, str):
            ids: Sequence[int] = self.render([("user", prompt), ("assistant", None)])
        elif len(prompt) and not isinstance(prompt[0], Mapping):
            ids = cast(Sequence[int], prompt)
        else:
            system, turns = turns_of(cast(Sequence[Message], prompt))
            ids = self.render([*turns, ("assistant", None)], system)
        return self.complete(
            ids,
            sampling,
            seed=int(self._seeds.integers(1 << 63)) if seed is None else seed,
            max_tokens=max_tokens,
            stop=[stop] if isinstance(stop, str) else stop,
            exact=True,
        )

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> str:
        """The assistant's answer to a conversation: `[{"role": "user", "content": "hi"}]`.  Raises what `generate` does."""
        return self.generate(list(messages), **options)

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text, without any before or after it.  Raises InputError when the model has no tokenizer."""
        self._completer.require_open()
        return encode(self._tokenizer, text)

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included.  Raises what `tokens` does, and UsageError for an invalid id."""
        self._completer.require_open()
        decoded: str = self._tokenizer.decode(self._checked_ids(ids), skip_special_tokens=False)
        return decoded

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits float32 [ids, vocab_size]: row i follows `ids[: i + 1]`.

        Raises UsageError for no ids, ids outside the vocabulary, and more ids than fit the context.
        """
        return self._completer.logits(self._checked_ids(ids))

    def render(self, turns: Sequence[Turn], system: str | None = None) -> list[int]:
        """The token ids of a conversation as the model's template renders it; `system` replaces its system message."""
        template = self.config["conv_template"]
        return [*prefix_token_ids(template), *self.tokens(render_prompt(template, turns, system))]

    def complete(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        *,
        seed: int | None,
        max_tokens: int = MAX_TOKENS,
        stop: Sequence[str] = (),
        exact: bool,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[str]:
        """The continuation of token ids, piece by piece; `exact` and `cancelled` as in `Completer.complete`.

        Raises what `generate` does.
        """
        prompt = self._checked_ids(ids)
        self._completer.require_room(prompt)
        texts = [*self.config["conv_template"]["stop_str"], *stop]
        stream = TextStream(self._tokenizer, texts)
        ends = self._stop | special_ids(self._tokenizer, texts)
        sampler = Sampler(sampling, seed)
        return self._completer.complete(
            prompt, stream, sampler, stop=ends, max_tokens=max_tokens, exact=exact, cancelled=cancelled
        )

    @cached_property
    def _tokenizer(self) -> Any:
        # Loaded on first use: logits of ids do not need it.
        return load_tokenizer(self.directory)

    def _checked_ids(self, ids: Sequence[Any]) -> list[int]:
        """The ids as whole numbers; one outside the vocabulary would read memory that is not the embedding's."""
        if isinstance(ids, bytes):
            raise UsageError("token ids must be whole numbers", why="bytes are no token ids")
        try:
            numbers = [operator.index(number) for number in ids]
        except TypeError as error:
            raise UsageError("token ids must be whole numbers", why=str(error)) from error
        for place, number in enumerate(numbers):
            if not 0 <= number < self.vocab_size:
                raise UsageError(f"token {place} is {number}, and the vocabulary has {self.vocab_size} tokens")
        return numbers
