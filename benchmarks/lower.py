"""CPU seconds of one lower task for each kind of device, cold: a process that has nothing, and where its time goes.

    python benchmarks/lower.py [--layers 16] [--devices cpu,metal,android,webgpu,cuda] [--phases] [--against CHECKOUT]

`--again` shows a second lowering besides, in another process with another context window, batch or chunk, which takes what the
first one kept.  The model is a Llama of hidden size 2048 with 16 layers (1.07 billion parameters), which is compiled without
its weights.
`--against` names another checkout of llmbuild, whose lower runs in turn with this one's; the ratio is that of the best of
`--repeat` runs.  CUDA's own compiler counts where it is a library (NVRTC), and does not where it is a program (nvcc).
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    "cpu": ("x86_64-linux-cpu", "q4f32_1"),
    "metal": ("aarch64-macos-metal", "q4f16_1"),
    "android": ("aarch64-android-adreno-so", "q4f16_1"),
    "webgpu": ("wasm32-webgpu", "q4f16_1"),
    "opencl": ("x86_64-linux-opencl", "q4f16_1"),
    "cuda": ("x86_64-linux-cuda", "q4f16_1"),
}
"""Target and scheme by the names of --devices."""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 49152,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}


CHANGES: Mapping[str, Mapping[str, int]] = {
    "": {},
    "window": {"context_window_size": 1024},
    "batch": {"max_batch_size": 8},
    "chunk": {"prefill_chunk_size": 256},
}
"""What a second lowering has of its own."""


def child(device: str, layers: int, out: Path, change: str, kept: Path | None) -> None:
    """Lower once, and print the CPU seconds of this process by phase."""
    import time

    begin = time.process_time()
    # TVM is imported as the lower task imports it, which earlier versions did without a module of their own.
    with suppress(ModuleNotFoundError):
        import_module("llmbuild.compiler.import_tvm")
    import tvm
    from tvm.relax import vm_build

    from llmbuild.compiler import lower as lowering
    from llmbuild.models import build
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family
    from llmbuild.quantization.scheme import SCHEMES
    from llmbuild.targets.files import load_target

    imported = time.process_time() - begin
    passes: dict[str, float] = {}
    running: list[list[Any]] = []

    @tvm.ir.instrument.pass_instrument
    class Clock:
        def run_before_pass(self, _: Any, info: Any) -> None:
            running.append([info.name, time.process_time(), 0.0])

        def run_after_pass(self, _: Any, info: Any) -> None:
            name, started, inner = running.pop()
            while name != info.name:
                # One that TVM began and had no need to run.
                name, started, inner = running.pop()
            took = time.process_time() - started
            passes[name] = passes.get(name, 0.0) + took - inner
            if running:
                running[-1][2] += took

    usual = tvm.transform.PassContext

    class Timed:
        current = usual.current

        def __new__(cls, **given: Any) -> Any:
            return usual(**given, instruments=[Clock()])

    tvm.transform.PassContext = Timed

    def clocked(owner: Any, name: str, phase: str) -> None:
        """Count a function's own time, without the passes in it, as a phase."""
        call = getattr(owner, name)

        def timed(*args: Any, **given: Any) -> Any:
            before, started = sum(passes.values()), time.process_time()
            found = call(*args, **given)
            passes[phase] = passes.get(phase, 0.0) + time.process_time() - started - sum(passes.values()) + before
            return found

        setattr(owner, name, timed)

    clocked(build, "export", "model to Relax")
    clocked(vm_build, "_vmcodegen", "code of the virtual machine")
    if hasattr(lowering, "codegen"):
        clocked(lowering.codegen, "_generated", "code generation")
        clocked(lowering.codegen, "write_objects", "writing objects")
    else:
        clocked(vm_build, "_vmlink", "code generation")
        clocked(lowering, "_export", "writing objects")
    clocked(tvm.ir, "save_json", "writing texts")
    clocked(tvm.ir, "load_json", "reading texts")
    target, scheme = CASES[device]
    config = family("llama").configure({**CONFIG, "num_hidden_layers": layers}, Overrides(**CHANGES[change]))
    names = ("vocab_size", "context_window_size", "sliding_window_size", "prefill_chunk_size", "attention_sink_size")
    chat = {"model_type": "llama", "quantization": scheme, "model_config": dict(config.to_json())}
    chat |= {name: getattr(config, name) for name in names}
    part = load_target(target).compile_part()
    more: dict[str, Any] = {}
    if kept is not None:
        from llmbuild.engine.action import Action
        from llmbuild.engine.intermediates import Intermediates

        kept.mkdir(exist_ok=True)
        more["kept"] = Intermediates(
            kept, Action(kind="lower", version=1, params={}, inputs={}, tools={}), lambda: kept
        )
    if device == "cpu" and "activations" in inspect.signature(lowering.lower).parameters:
        # What a platform has by default.
        more["activations"] = "int8x2"
    lowering.lower(chat, SCHEMES[scheme], {}, part, system_lib=False, system_lib_prefix=None, out=out, **more)
    total = time.process_time()
    rest = total - imported - sum(passes.values())
    print(json.dumps({"total": total, "phases": {"imports": imported, "rest": rest, **passes}}))


def measure(checkout: Path, device: str, layers: int, change: str = "", kept: Path | None = None) -> dict[str, Any]:
    """The result of a child process that imports llmbuild from the checkout."""
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--child", device, "--layers", str(layers), "--out", out]
        command += ["--change", change, *([] if kept is None else ["--kept", str(kept)])]
        done = subprocess.run(command, env=env, cwd=out, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--devices", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--phases", action="store_true", help="list the phases that take 0.05 s or more")
    parser.add_argument("--against", type=Path, help="another checkout of llmbuild")
    parser.add_argument(
        "--again", action="store_true", help="show second lowerings, which take what the first one kept"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--change", default="", help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.layers, args.out, args.change, args.kept)
        return
    checkouts = [ROOT, *([args.against.resolve()] if args.against else [])]
    print(f"{'device':8} {'scheme':8} {'CPU s':>6}" + (f" {'other':>6} {'ratio':>6}" if args.against else ""))
    for device in args.devices.split(","):
        runs = [[measure(checkout, device, args.layers) for checkout in checkouts] for _ in range(args.repeat)]
        best = [min((run[i] for run in runs), key=lambda one: one["total"]) for i in range(len(checkouts))]
        totals = [one["total"] for one in best]
        ratio = f" {totals[1]:6.2f} {totals[0] / totals[1]:6.2f}" if args.against else ""
        print(f"{device:8} {CASES[device][1]:8} {totals[0]:6.2f}{ratio}", flush=True)
        if args.phases:
            for name, seconds in sorted(best[0]["phases"].items(), key=lambda item: -item[1]):
                other = f" {best[1]['phases'].get(name, 0.0):6.2f}" if args.against else ""
                if seconds >= 0.05:
                    print(f"    {name:40} {seconds:6.2f}{other}")
        if args.again:
            again(device, args.layers, totals)


def again(device: str, layers: int, totals: list[float]) -> None:
    """Show each change after a first lowering that kept its results."""
    with tempfile.TemporaryDirectory() as directory:
        kept = Path(directory) / "kept"
        first = measure(ROOT, device, layers, "", kept)["total"]
        size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
        print(f"    {'keeping ' + format(size / 1e6, '.1f') + ' MB':17} {first:6.2f}{_beside(first, totals)}")
        for change in CHANGES:
            took = measure(ROOT, device, layers, change, kept)["total"]
            print(f"    {'then ' + (change or 'the same'):17} {took:6.2f}{_beside(took, totals)}", flush=True)


def _beside(seconds: float, totals: list[float]) -> str:
    return f" {totals[1]:6.2f} {seconds / totals[1]:6.2f}" if len(totals) > 1 else ""


if __name__ == "__main__":
    main()
