"""How fast the quantize task is, from a checkpoint on disk to a finished weight directory on disk, and how much memory it takes.

Makes a llama-shaped float16 checkpoint of one billion parameters in shards of about 400 MB, then runs the task's own function in
a child process for each scheme and reports MB/s of input and the child's peak resident memory (which holds Python and NumPy too).

    python benchmarks/quantize.py [--layers 20] [--schemes q4f16_1,q0f16] [--method search] [--repeat 3] [--directory DIR]

The checkpoint stays in DIR (default: a directory under the system's temporary one, removed at the end) and is read once
before the first measurement, so that the page cache is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

HIDDEN, INTERMEDIATE, HEADS, VOCAB = 2048, 5632, 16, 32000
LAYERS = 18
SHARD_BYTES = 400_000_000
SCHEMES = ("q4f16_1", "q4f32_1", "q3f16_1", "q0f16")


def tensor_shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a llama checkpoint, in the usual order."""
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(layers):
        prefix = f"model.layers.{i}"
        yield f"{prefix}.input_layernorm.weight", (HIDDEN,)
        yield f"{prefix}.mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)
        yield f"{prefix}.mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{prefix}.mlp.up_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{prefix}.post_attention_layernorm.weight", (HIDDEN,)
        for name in "qkvo":
            yield f"{prefix}.self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def make_checkpoint(directory: Path, layers: int) -> tuple[int, int]:
    """Write the checkpoint; returns (parameters, bytes of weights).  Weights are normal numbers with deviation 0.02."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": layers,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    # One pool of numbers, read from shifting positions: generating a billion would take minutes.
    pool = (rng.standard_normal(1 << 25) * 0.02).astype(np.float16)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensor_shapes(layers):
        if filled >= SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += 2 * int(np.prod(shape))
    weight_map, total, shift = {}, 0, 0
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {}, 0
        for name, shape in shard:
            end = offset + 2 * int(np.prod(shape))
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
            weight_map[name] = file_name
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (directory / file_name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, shape in shard:
                left = int(np.prod(shape))
                while left:
                    shift = (shift + 7919) % (1 << 20)
                    part = pool[shift : shift + min(left, 1 << 24)]
                    file.write(part.data)
                    left -= part.size
        total += offset
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total // 2, total


def run_child(checkpoint: Path, out: Path, scheme: str, method: str, threads: int) -> None:
    """Run the quantize task once; prints its seconds, the process's CPU seconds and its peak resident memory as JSON."""
    from llmbuild.engine.kind import Job
    from llmbuild.quantization.scheme import SCHEMES as KNOWN
    from llmbuild.tasks.quantize import KIND

    params = {
        "scheme": KNOWN[scheme].to_json(), "method": method, "model-type": None, "source-format": None, "ignore-keys": [],
        "float32": "bf16",
    }  # fmt: skip
    # What inspect finds: nothing that config.json does not have.
    facts = out.with_name(f"{out.name}.facts.json")
    facts.write_text(json.dumps({"config": {}, "model_type": "llama"}))
    job = Job(params, {"checkpoint": checkpoint, "facts": facts}, {"threads": threads}, out, out, lambda *_: None)
    start = time.perf_counter()
    KIND.run(job)
    seconds = time.perf_counter() - start
    facts.unlink()
    # Not getrusage: its maximum survives exec and would be that of the parent, which made the checkpoint.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "peak": peak}))


def measure(checkpoint: Path, scratch: Path, scheme: str, method: str, threads: int) -> dict[str, float]:
    out = scratch / f"out-{scheme}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [sys.executable, __file__, "--child", str(checkpoint), str(out), scheme, "--method", method]
    command += ["--threads", str(threads)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(out)
    values: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--method", choices=["round", "search"], default="round")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--child", nargs=3, metavar=("CHECKPOINT", "OUT", "SCHEME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(Path(options.child[0]), Path(options.child[1]), options.child[2], options.method, options.threads)
        return
    scratch = options.directory or Path(tempfile.mkdtemp(prefix="llmbuild-bench-"))
    try:
        checkpoint = scratch / f"checkpoint-{options.layers}"
        shutil.rmtree(checkpoint, ignore_errors=True)
        parameters, size = make_checkpoint(checkpoint, options.layers)
        for file in checkpoint.glob("*.safetensors"):
            with file.open("rb") as stream:
                while stream.read(1 << 24):
                    pass
        os.sync()  # The checkpoint still on its way to the disk would slow the first measurement.
        print(f"nproc {os.cpu_count()}, {options.threads} threads, {platform.machine()}, NumPy {np.__version__}")
        print(f"checkpoint: {parameters / 1e9:.3f} billion parameters, {size / 1e6:.0f} MB of float16")
        print(f"{'scheme':10} {'MB/s':>8} {'seconds':>8} {'spread':>15} {'CPU s':>6} {'peak RSS MB':>12}")
        for scheme in options.schemes.split(","):
            runs = [
                measure(checkpoint, scratch, scheme, options.method, options.threads) for _ in range(options.repeat)
            ]
            seconds = [run["seconds"] for run in runs]
            middle = statistics.median(seconds)
            peak = max(run["peak"] for run in runs) / 1e6
            cpu = min(run["cpu"] for run in runs)
            spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
            print(
                f"{scheme:10} {size / middle / 1e6:8.0f} {middle:8.2f} {spread:>15} {cpu:6.2f} {peak:12.0f}", flush=True
            )
    finally:
        if options.directory is None:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
