"""Tokens per second of built libraries: prefill of prompts and greedy decode after them, beside TVM's stock schedules.

    python benchmarks/chat_speed.py dist/libs/<library>.so... [--prompt 64 400] [--decode 40] [--threads 2] [--cpu-time]
        [--stock dist/<model>-<scheme>-MLC/mlc-chat-config.json] [--busy 2]

Weights are random, of the right shapes: speed does not depend on their values.  With --stock the same model is compiled
twice more, for x86-64-v3: with TVM's attention, and with TVM's linear layers too, which dequantize whole matrices.  Each
number is the median, and in brackets the best, which other work on the machine disturbs less.  With --busy, processes that only
count run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
STOCK = {"TVM's attention": ("attention",), "TVM's attention and linears": ("attention", "linears")}


def compiled(config: Path, stock: tuple[str, ...], directory: Path) -> Path:
    """A library of the model with parts left to TVM."""
    from llmbuild import linkers
    from llmbuild.compiler.lower import lower
    from llmbuild.quantization.scheme import SCHEMES

    content = json.loads(config.read_text())
    objects, scratch = directory / "objects", directory / "scratch"
    objects.mkdir(parents=True)
    scratch.mkdir()
    target = {"device": "cpu", "host": HOST}
    scheme = SCHEMES[content["quantization"]]
    lower(content, scheme, {}, target, system_lib=False, system_lib_prefix=None, out=objects, stock=stock)
    linkers.link_objects({}, "so", sorted(objects.glob("*.o")), directory / "lib.so", scratch=scratch)
    return directory / "lib.so"


def weights(metadata: dict[str, Any]) -> list[Any]:
    """Random parameters of the library's shapes."""
    import ml_dtypes
    import numpy as np
    import tvm

    rng = np.random.default_rng(0)
    params = []
    for record in metadata["params"]:
        shape, dtype = record["shape"], record["dtype"]
        if dtype == "uint32":
            value = rng.integers(0, 2**32, shape, dtype=np.uint32)
        else:
            scale = 0.01 if record["name"].endswith("q_scale") else 0.05
            value = (rng.standard_normal(shape) * scale).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        params.append(tvm.runtime.tensor(value))
    return params


def measure(
    library: Path, prompt: int, decode: int, repeat: int, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Seconds of each prefill of `prompt` tokens and of each of the `decode` steps after it."""
    import numpy as np
    import tvm
    import tvm_ffi
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library.resolve())), tvm.cpu())
    metadata = json.loads(machine["_metadata"]())
    params = weights(metadata)
    rng = np.random.default_rng(0)
    size, call = tvm_ffi.Shape, tvm.get_global_func
    sizes = [[1], [prompt + decode + 16], [metadata["prefill_chunk_size"]], [16], [0]]
    cache = machine["create_tir_paged_kv_cache"](*map(size, sizes))
    call("vm.builtin.kv_state_add_sequence")(cache, 0)
    begin, end = call("vm.builtin.kv_state_begin_forward"), call("vm.builtin.kv_state_end_forward")
    view, vocabulary = call("vm.builtin.reshape"), metadata["params"][0]["shape"][0]

    def forward(name: str, count: int) -> float:
        ids = tvm.runtime.tensor(rng.integers(0, vocabulary, count).astype(np.int32))
        start = clock()
        x = machine["embed"](ids, params)
        begin(cache, size([0]), size([count]))
        machine[name](view(x, size([1, count, x.shape[1]])), cache, params)
        end(cache)
        return clock() - start

    forward("prefill", prompt)
    prompts, steps = [], []
    for _ in range(repeat):
        call("vm.builtin.kv_state_remove_sequence")(cache, 0)
        call("vm.builtin.kv_state_add_sequence")(cache, 0)
        prompts.append(forward("prefill", prompt))
        steps += [forward("decode", 1) for _ in range(decode)]
    return prompts, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", type=Path, nargs="+")
    parser.add_argument("--prompt", type=int, nargs="+", default=[64, 400])
    parser.add_argument("--decode", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stock", type=Path, help="mlc-chat-config.json of the model: compare with TVM's schedules")
    parser.add_argument("--busy", type=int, default=0, help="how many busy processes run beside")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, of one thread: for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        arguments.threads = 1
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    from llmbuild.runtime.library import configure_threads

    configure_threads(arguments.threads)
    neighbours = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(arguments.busy)
    ]
    try:
        run(arguments, clock)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def run(arguments: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Measure and print."""
    print(f"{arguments.threads} threads, tokens/s: median (best)")
    with tempfile.TemporaryDirectory() as directory:
        libraries = {library.name: library for library in arguments.libraries}
        if arguments.stock:
            for index, (name, stock) in enumerate(STOCK.items()):
                libraries[name] = compiled(arguments.stock, stock, Path(directory) / str(index))
        for name, library in libraries.items():
            print(name, flush=True)
            for prompt in arguments.prompt:
                prompts, steps = measure(library, prompt, arguments.decode, arguments.repeat, clock)
                print(
                    f"  prefill of {prompt}: {prompt / statistics.median(prompts):.0f} ({prompt / min(prompts):.0f})"
                    f", decode of {arguments.decode}: {1 / statistics.median(steps):.1f} ({1 / min(steps):.1f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
