"""What WebLLM refuses of a model and a library, as of its release 0.2.86."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

LARGEST_BINDING = 1 << 30
"""Bytes of one buffer that it asks a device for."""

_BYTES = {"float32": 4, "uint32": 4, "float16": 2, "bfloat16": 2}


def refusals(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each thing that it refuses.

    `config` has the fields of mlc-chat-config.json that compilation reads, `metadata` is the library's own record.
    """
    for parameter in metadata["params"]:
        shape = (config["vocab_size"] if size == "vocab_size" else size for size in parameter["shape"])
        size = math.prod(shape) * _BYTES[parameter["dtype"]]
        if size > LARGEST_BINDING:
            yield (
                f"WebLLM binds at most {LARGEST_BINDING} bytes of one tensor, and {parameter['name']} has {size}: build with a "
                "scheme of fewer bits"
            )
