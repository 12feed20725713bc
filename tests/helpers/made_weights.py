"""Weights of a library without a checkpoint: small numbers of each parameter's shape, for measuring what they take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def write_weights(directory: Path, metadata: Mapping[str, Any], chat_config: Mapping[str, Any]) -> None:
    """A model directory of a library with this record: shards, their index and mlc-chat-config.json."""
    import numpy as np

    from llmbuild.quantization.shards import ShardWriter
    from llmbuild.quantization.tensor_index import Totals, write_index

    directory.mkdir(parents=True)
    (directory / "mlc-chat-config.json").write_text(json.dumps(chat_config))
    with ThreadPoolExecutor(1) as executor:
        writer = ShardWriter(directory, executor)
        for record in metadata["params"]:
            shape = [chat_config["vocab_size"] if size == "vocab_size" else size for size in record["shape"]]
            # Packed words of zeros are the smallest number of a scheme; the scales keep it small.
            value = 0 if record["dtype"] == "uint32" else 0.01
            writer.append(record["name"], np.full(shape, value, record["dtype"]))
        shards = writer.finish()
    elements = sum(math.prod(tensor.shape) for shard in shards for tensor in shard.tensors)
    write_index(directory, shards, Totals(writer.tensors, writer.nbytes, elements))
