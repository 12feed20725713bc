"""Whole-process times of what a user waits for most: `llmbuild --help` and a build that has nothing to do.

    python benchmarks/startup.py [--runs 5]

Builds a tiny model once in a temporary project (or use --project DIR with a built one), then times whole processes.
Goals: --help under 150 ms, a null build under 500 ms, as medians.
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

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def timed(command: list[str], cwd: Path, env: dict[str, str], runs: int) -> list[float]:
    """Seconds of each run after one warm-up; a failing command ends the benchmark."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--project", type=Path, help="a project directory whose manifest is already built")
    args = parser.parse_args()
    llmbuild = [sys.executable, "-m", "llmbuild"]
    with tempfile.TemporaryDirectory() as scratch:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        project = args.project
        if project is None:
            from tests.helpers.checkpoints import make_checkpoint
            from tests.helpers.cli import TINY_MANIFEST, make_project

            checkpoint = make_checkpoint(Path(scratch) / "checkpoint", "llama-gqa")
            made = make_project(Path(scratch) / "made", TINY_MANIFEST, checkpoint)
            env["LLMBUILD_CACHE"] = str(made.store)
            project = made.root
        subprocess.run([*llmbuild, "build"], cwd=project, env=env, check=True, stdout=subprocess.DEVNULL)
        rows = [
            ("python -c pass", timed([sys.executable, "-c", "pass"], project, env, args.runs)),
            ("llmbuild --help", timed([*llmbuild, "--help"], project, env, args.runs)),
            ("llmbuild build (nothing to do)", timed([*llmbuild, "build"], project, env, args.runs)),
            ("llmbuild plan (nothing to do)", timed([*llmbuild, "plan"], project, env, args.runs)),
        ]
    print(f"{'command':34} {'median':>8} {'min':>8} {'max':>8}   ({args.runs} runs, milliseconds)")
    for name, seconds in rows:
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        print(f"{name:34} " + " ".join(f"{1000 * figure:8.0f}" for figure in figures))


if __name__ == "__main__":
    main()
