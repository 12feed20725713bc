"""The quantize task beside llama.cpp's llama-quantize, in turn, on one GGUF file: wall and CPU seconds, peak memory, ratios.

    python benchmarks/quantize_peer.py --llama-cpp BUILD/bin --directory DIR [--gguf FILE] [--schemes q4f16_1] [--threads 2]
        [--rounds 3]

`peers.py` says how the peer is built, and makes the model of 1.07 billion float16 parameters where no file is given.  Both read
it from the page cache; llama-quantize makes Q4_0 of it (4.5 bits a weight, as q4f16_1 has).  Each run is a whole process, with
what Python and NumPy take to start; llama-quantize does not verify or hash what it writes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peers import make_model


def timed(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident megabytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True, help="the directory of llama-quantize")
    parser.add_argument("--directory", type=Path, required=True, help="where the model is made, and stays")
    parser.add_argument("--gguf", type=Path, help="a model in float16 instead of the random one")
    parser.add_argument("--schemes", nargs="+", default=["q4f16_1"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    directory = arguments.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    source = (arguments.gguf or directory / "model-f16.gguf").absolute()
    if not source.exists():
        # In a process of its own: a child's peak memory would be at least that of this one.
        subprocess.run([sys.executable, __file__, "--make", str(source)], check=True)
    with source.open("rb") as file:
        while file.read(1 << 24):
            pass
    threads = str(arguments.threads)
    runs: dict[str, list[tuple[float, float, float]]] = {"llama.cpp": [], **{name: [] for name in arguments.schemes}}
    for _ in range(arguments.rounds):
        for name, each in runs.items():
            with tempfile.TemporaryDirectory(dir=directory) as out:
                if name == "llama.cpp":
                    quantize = str(arguments.llama_cpp / "llama-quantize")
                    command = [quantize, "--pure", str(source), f"{out}/model.gguf", "Q4_0", threads]
                else:
                    child = str(Path(__file__).with_name("quantize.py"))
                    command = [sys.executable, child, "--child", str(source), out, name, "--threads", threads]
                each.append(timed(command))
    peer = [statistics.median(column) for column in zip(*runs["llama.cpp"], strict=True)]
    for name, each in runs.items():
        seconds, cpu, peak = (statistics.median(column) for column in zip(*each, strict=True))
        spread = f"{min(run[0] for run in each):.2f}-{max(run[0] for run in each):.2f}"
        print(
            f"{name}: {seconds:.2f} s ({spread}), CPU {cpu:.2f} s, peak {peak:.0f} MB; "
            f"llama.cpp takes {peer[0] / seconds:.2f} times as long, {peer[1] / cpu:.2f} times the CPU"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make_model(Path(sys.argv[2]))
    else:
        main()
