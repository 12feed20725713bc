"""Tokens per second of a built library: prefill of a prompt and greedy decode, with random weights of the right shapes.

    python benchmarks/chat_speed.py dist/libs/<library>.so [--prompt 64] [--decode 40] [--threads 2]

Speed does not depend on the values of weights, so that no model directory is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--decode", type=int, default=40)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)
    os.environ.setdefault("TVM_BIND_THREADS", "0")

    import ml_dtypes
    import numpy as np
    import tvm
    import tvm_ffi
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(arguments.library.resolve())), tvm.cpu())
    metadata = json.loads(machine["_metadata"]())
    rng = np.random.default_rng(0)

    def weight(record: dict[str, Any]) -> Any:
        shape, dtype = record["shape"], record["dtype"]
        if dtype == "uint32":
            value = rng.integers(0, 2**32, shape, dtype=np.uint32)
        else:
            scale = 0.01 if record["name"].endswith("q_scale") else 0.05
            value = (rng.standard_normal(shape) * scale).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        return tvm.runtime.tensor(value)

    params = [weight(record) for record in metadata["params"]]
    size, call = tvm_ffi.Shape, tvm.get_global_func
    sizes = [[1], [arguments.prompt + arguments.decode + 16], [metadata["prefill_chunk_size"]], [16], [0]]
    cache = machine["create_tir_paged_kv_cache"](*map(size, sizes))
    call("vm.builtin.kv_state_add_sequence")(cache, 0)
    begin, end = call("vm.builtin.kv_state_begin_forward"), call("vm.builtin.kv_state_end_forward")
    view, vocabulary = call("vm.builtin.reshape"), metadata["params"][0]["shape"][0]

    def forward(name: str, count: int) -> float:
        ids = tvm.runtime.tensor(rng.integers(0, vocabulary, count).astype(np.int32))
        start = time.perf_counter()
        x = machine["embed"](ids, params)
        begin(cache, size([0]), size([count]))
        machine[name](view(x, size([1, count, x.shape[1]])), cache, params)
        end(cache)
        return time.perf_counter() - start

    def restart() -> None:
        call("vm.builtin.kv_state_remove_sequence")(cache, 0)
        call("vm.builtin.kv_state_add_sequence")(cache, 0)

    forward("prefill", arguments.prompt)
    prompts, steps = [], []
    for _ in range(5):
        restart()
        prompts.append(forward("prefill", arguments.prompt))
        steps += [forward("decode", 1) for _ in range(arguments.decode)]
    print(f"{metadata['model_type']} {metadata['quantization']}, {arguments.threads} threads")
    print(f"prefill of {arguments.prompt}: {arguments.prompt / statistics.median(prompts):.0f} tokens/s")
    print(f"decode of {arguments.decode}: {1 / statistics.median(steps):.1f} tokens/s")


if __name__ == "__main__":
    main()
