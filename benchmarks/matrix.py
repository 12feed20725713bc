"""Two models for every target that this machine builds for: a build into an empty store, and one after another context window.

    python benchmarks/matrix.py [--models Llama-3.2-1B Qwen2.5-0.5B] [--targets TARGET...] [--jobs 2] [--against CHECKOUT]

The models are presets without weights, so that config, lower and link are what runs.  Wall seconds, CPU seconds of all
processes, and the memory of the largest of them.  `--against` names another checkout of llmbuild, which builds the same before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(checkout: Path, place: Path) -> dict[str, str]:
    """For processes of llmbuild as it is in a checkout, compiled to bytecode as an installed one is."""
    values = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**values, "PYTHONPATH": str(checkout), "LLMBUILD_CACHE": str(place / "store")}


def targets_here(place: Path) -> list[str]:
    """The targets that this machine has the tools for."""
    command = [sys.executable, "-m", "llmbuild", "targets", "--json"]
    done = subprocess.run(command, env=environment(ROOT, place), cwd=place, check=True, stdout=subprocess.PIPE)
    return [target["name"] for target in json.loads(done.stdout) if target["ready"]]


def manifest(models: Sequence[str], targets: Sequence[str], window: int) -> str:
    """Each model in 4 bits for each target: float32 on CPUs, float16 elsewhere."""
    lines = ["[project]", 'name = "matrix"']
    for number, model in enumerate(models):
        settings = f"context-window-size = {window}, prefill-chunk-size = 512"
        lines += [f"[models.model{number}]", f'preset = "{model}"', f"metadata = {{ {settings} }}"]
    for scheme, on_cpu in (("q4f32_1", True), ("q4f16_1", False)):
        chosen = [target for target in targets if ("-cpu" in target) == on_cpu]
        if chosen:
            lines += ["[[build]]", f'quantizations = ["{scheme}"]', f"platforms = {json.dumps(chosen)}"]
    return "\n".join(lines) + "\n"


def build(checkout: Path, place: Path, jobs: int, text: str) -> str:
    """Build the manifest and say what it took."""
    (place / "buildfile.toml").write_text(text)
    command = [sys.executable, "-m", "llmbuild", "build", "--jobs", str(jobs)]
    if (checkout / "llmbuild/workspace/trust.py").exists():
        command.append("--trust")
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        env=environment(checkout, place),
        cwd=place,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(done.stdout.decode(errors="replace")[-4000:])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:7.1f} s {used:8.1f} CPU s {after.ru_maxrss / 1000:8.0f} MB in the largest process of all so far"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["Llama-3.2-1B", "Qwen2.5-0.5B"], help="presets")
    parser.add_argument("--targets", nargs="+", help="by default all that this machine has the tools for")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--against", type=Path, help="another checkout of llmbuild")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        targets = args.targets or targets_here(place)
        print(f"{len(args.models)} models, {len(targets)} targets, {args.jobs} jobs")
        first, second = (manifest(args.models, targets, window) for window in (2048, 1024))
        if args.against is not None:
            other = Path(tempfile.mkdtemp(dir=place))
            print(f"{'the other checkout':24} {build(args.against.resolve(), other, args.jobs, first)}", flush=True)
        print(f"{'an empty store':24} {build(ROOT, place, args.jobs, first)}", flush=True)
        print(f"{'another context window':24} {build(ROOT, place, args.jobs, second)}", flush=True)


if __name__ == "__main__":
    main()
