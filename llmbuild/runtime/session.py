"""A session: a library with its parameters and a paged KV cache, driven token by token.

Logits come back as float32 NumPy arrays.  Prompts longer than the library's prefill chunk are fed in chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbuild.errors import UsageError
from llmbuild.runtime.library import Library

if TYPE_CHECKING:
    import numpy as np

PAGE_SIZE = 16
"""Tokens in a page of the KV cache, as MLCEngine uses."""


class Session:
    """Sequences of tokens in one KV cache.

    `max_sequences` sequences share room for `capacity` tokens (for a sliding-window model the window's size is enough).
    `rows` are those of the embedding: every method that takes tokens raises UsageError for one without a row.
    """

    def __init__(self, library: Library, parameters: Sequence[Any], *, max_sequences: int = 1, capacity: int) -> None:
        import tvm_ffi
        from tvm import get_global_func

        metadata = library.metadata
        self.chunk: int = metadata["prefill_chunk_size"]
        self.window: int = metadata["sliding_window_size"]
        self.sink: int = max(metadata["attention_sink_size"], 0)
        self.capacity = capacity
        self._library = library
        self._parameters = list(parameters)
        self.rows = _rows(metadata["params"], parameters)
        self._shape = tvm_ffi.Shape
        self._global = get_global_func
        create = library.function("create_tir_paged_kv_cache")
        sizes = (max_sequences, capacity, self.chunk, PAGE_SIZE, int(self.window != -1))
        self._cache = create(*(self._shape([size]) for size in sizes))
        self._lengths: dict[int, int] = {}

    def add(self, sequence: int = 0) -> None:
        """Start an empty sequence."""
        self._global("vm.builtin.kv_state_add_sequence")(self._cache, sequence)
        if self.window != -1:
            enable = self._global("vm.builtin.attention_kv_cache_enable_sliding_window_for_seq")
            enable(self._cache, sequence, self.window, self.sink)
        self._lengths[sequence] = 0

    def remove(self, sequence: int = 0) -> None:
        self._global("vm.builtin.kv_state_remove_sequence")(self._cache, sequence)
        del self._lengths[sequence]

    def truncate(self, length: int, sequence: int = 0) -> None:
        """Forget the tokens after the first `length`."""
        surplus = self._lengths[sequence] - length
        if surplus > 0:
            self._global("vm.builtin.kv_state_popn")(self._cache, sequence, surplus)
            self._lengths[sequence] = length

    def length(self, sequence: int = 0) -> int:
        return self._lengths[sequence]

    def prefill(self, tokens: Sequence[int], sequence: int = 0) -> np.ndarray:
        """Append tokens; returns the logits [vocab] after the last one."""
        if not tokens:
            raise UsageError("nothing to prefill: the prompt has no tokens")
        for logits in self._chunks("prefill", tokens, sequence):
            last = logits
        return self._numpy(last).reshape(-1)

    def extend(self, tokens: Sequence[int], sequence: int = 0) -> np.ndarray:
        """Append tokens; returns the logits [tokens, vocab] after each of them."""
        import numpy as np

        parts = [self._numpy(logits)[0] for logits in self._chunks("batch_verify", tokens, sequence)]
        return np.concatenate(parts)

    def linear_inputs(self, tokens: Sequence[int], sequence: int = 0) -> list[np.ndarray]:
        """Append tokens, no more than a chunk, by a library with taps; returns the inputs [tokens, k] of its linear layers."""
        function = self._library.function("linear_inputs")
        embedded = self._embed(tokens, (1, len(tokens)))
        call = lambda: function(embedded, self._cache, self._parameters)  # noqa: E731
        *found, _ = self._forward({sequence: len(tokens)}, call)
        return [self._numpy(each)[0] for each in found]

    def _chunks(self, name: str, tokens: Sequence[int], sequence: int) -> Iterator[Any]:
        """Append tokens by a function of the library, one prefill chunk after another; yields the logits of each."""
        function = self._library.function(name)
        for start in range(0, len(tokens), self.chunk):
            part = tokens[start : start + self.chunk]
            embedded = self._embed(part, (1, len(part)))
            call = lambda x=embedded: function(x, self._cache, self._parameters)  # noqa: E731
            yield self._forward({sequence: len(part)}, call)[0]

    def decode(self, token: int, sequence: int = 0) -> np.ndarray:
        """Append one token; returns the logits [vocab] after it."""
        decode = self._library.function("decode")
        embedded = self._embed([token], (1, 1))
        logits, _ = self._forward({sequence: 1}, lambda: decode(embedded, self._cache, self._parameters))
        return self._numpy(logits).reshape(-1)

    def batch_prefill(self, prompts: Mapping[int, Sequence[int]]) -> np.ndarray:
        """Append a prompt to each of several sequences in one step; returns logits [sequences, vocab].

        The prompts together must fit in one prefill chunk.
        """
        import numpy as np
        import tvm

        total = sum(len(prompt) for prompt in prompts.values())
        if total > self.chunk:
            raise UsageError(f"{total} tokens do not fit in one prefill chunk of {self.chunk}")
        embedded = self._embed([token for prompt in prompts.values() for token in prompt], (1, total))
        ends = np.cumsum([len(prompt) for prompt in prompts.values()], dtype="int32") - 1
        positions = tvm.runtime.tensor(ends.astype("int32"), self._library.device)
        batch_prefill = self._library.function("batch_prefill")
        lengths = {sequence: len(prompt) for sequence, prompt in prompts.items()}
        logits, _ = self._forward(lengths, lambda: batch_prefill(embedded, positions, self._cache, self._parameters))
        return self._numpy(logits).reshape(len(prompts), -1)

    def batch_decode(self, tokens: Mapping[int, int]) -> np.ndarray:
        """Append one token to each of several sequences; returns logits [sequences, vocab]."""
        batch_decode = self._library.function("batch_decode")
        embedded = self._embed(list(tokens.values()), (len(tokens), 1))
        logits, _ = self._forward(
            dict.fromkeys(tokens, 1), lambda: batch_decode(embedded, self._cache, self._parameters)
        )
        return self._numpy(logits).reshape(len(tokens), -1)

    def _embed(self, tokens: Sequence[int], lead: tuple[int, int]) -> Any:
        import numpy as np
        import tvm

        # The library itself would read its last row for a number beyond it, and its first for a negative one.
        beyond = next((token for token in tokens if not 0 <= token < self.rows), None)
        if beyond is not None:
            raise UsageError(f"there is no token {beyond}: the model's embedding has {self.rows} rows")
        ids = tvm.runtime.tensor(np.asarray(tokens, dtype="int32"), self._library.device)
        embedded = self._library.function("embed")(ids, self._parameters)
        return self._global("vm.builtin.reshape")(embedded, self._shape([*lead, embedded.shape[-1]]))

    def _forward(self, lengths: Mapping[int, int], call: Any) -> Any:
        """Run one step between the cache's begin and end; returns what the call does: the results, and the cache."""
        begin = self._global("vm.builtin.kv_state_begin_forward")
        begin(self._cache, self._shape(list(lengths)), self._shape(list(lengths.values())))
        result = call()
        self._global("vm.builtin.kv_state_end_forward")(self._cache)
        for sequence, added in lengths.items():
            self._lengths[sequence] += added
        return result

    @staticmethod
    def _numpy(tensor: Any) -> np.ndarray:
        array: np.ndarray = tensor.numpy()
        return array


def _rows(records: Sequence[Mapping[str, Any]], parameters: Sequence[Any]) -> int:
    """The rows of the embedding, which is never stored transposed; a library's record may leave their number open."""
    index = next((index for index, record in enumerate(records) if "embed" in record["name"]), 0)
    rows: int = parameters[index].shape[0]
    return rows
