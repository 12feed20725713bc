"""The cache commands: what they print, to the character, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.cli import main as cli
from llmbuild.engine.hit_counts import Use
from llmbuild.engine.intermediates import IntermediateFacts
from llmbuild.engine.store import Store
from llmbuild.engine.upkeep.archive import Packed
from llmbuild.engine.upkeep.audit import Audit, Finding
from llmbuild.engine.upkeep.gc import Choice, Collected
from llmbuild.engine.upkeep.survey import BlobFacts, Survey, TraceFacts
from llmbuild.report.cache_text import audit_text, collected_text, packed_text, stats_text
from llmbuild.report.style import Style
from tests.helpers import engine_kinds
from tests.helpers.engine_build import build, join_task, write_task

NOW = 1_000_000.0
LABELS = [
    "fetch[smollm2]",
    "quantize[smollm2, q4f32_1]",
    "config[smollm2, q4f32_1]",
    "lower[smollm2, q4f32_1, x86_64-linux-cpu-with-a-rather-long-name-that-does-not-fit-into-eighty]",
    "link[smollm2, q4f32_1, x86_64-linux-cpu]",
    "fetch[other]",
]
SIZES = [270_000_000, 75_900_000, 2_100_000, 850_000, 512, 1_100_000_000]


INTERMEDIATES = tuple(IntermediateFacts(Path(f"/c/intermediates/t/{n}"), 500 + 500 * n, NOW) for n in range(2))


def facts() -> dict[str, TraceFacts]:
    made = {}
    for number, (label, size) in enumerate(zip(LABELS, SIZES, strict=True)):
        name = digest_bytes(label.encode())
        blob = digest_bytes(f"output {label}".encode())
        used = NOW - [0, 300, 7200, 3 * 86400, 40 * 86400, 59][number]
        made[name] = TraceFacts(name, label.split("[")[0], label, "p", blob, size, used, frozenset([blob]))
    return made


def sample() -> Survey:
    traces = facts()
    blobs = {
        trace.output: BlobFacts(trace.output_size, NOW, 1 + (trace.kind == "quantize")) for trace in traces.values()
    }
    blobs[digest_bytes(b"garbage")] = BlobFacts(4_200, NOW, 1)
    return Survey(
        blobs,
        traces,
        roots=dict.fromkeys(list(traces)[:5], NOW),
        running=frozenset(list(traces)[:1]),
        intermediates=INTERMEDIATES,
    )


STATS_120 = """\
cache    /home/u/.cache/llmbuild
blobs    7, 1.4 GB
linked   1, 75.9 MB: the same bytes as files of projects
unused   1, 4.2 kB: nothing refers to them, `llmbuild cache gc` removes them
interim  2, 1.5 kB: intermediate results, for later tasks
traces   6, 5 of them the last results of projects
  config         1     2.1 MB
  fetch          2     1.4 GB
  link           1      512 B
  lower          1   850.0 kB
  quantize       1    75.9 MB
largest results
     1.1 GB  used just now     fetch[other]
   270.0 MB  used just now     fetch[smollm2]
    75.9 MB  used 5 min ago    quantize[smollm2, q4f32_1]
     2.1 MB  used 2 h ago      config[smollm2, q4f32_1]
   850.0 kB  used 3 d ago      lower[smollm2, q4f32_1, x86_64-linux-cpu-with-a-rather-long-name-that-does-not-fit-into-…
running  1 action"""


def test_stats_text() -> None:
    assert stats_text("/home/u/.cache/llmbuild", sample(), NOW, Style(120)) == STATS_120
    narrow = stats_text("/home/u/.cache/llmbuild", sample(), NOW, Style(80))
    assert narrow.splitlines()[-2] == (
        "   850.0 kB  used 3 d ago      lower[smollm2, q4f32_1, x86_64-linux-cpu-with-a-…"
    )
    assert all(len(line) <= 80 for line in narrow.splitlines())


def test_stats_tell_what_builds_found() -> None:
    uses = {"lower": Use(6, 2), "fetch": Use(1, 1), "quantize": Use(0, 3)}
    text = stats_text("/c", sample(), NOW, Style(80), uses)
    assert text[text.index("uses") : text.index("largest")] == dedent(
        """\
        uses     7 hits, 6 misses (53 %), in all builds
          fetch      1 hit, 1 miss (50 %)
          lower      6 hits, 2 misses (75 %)
          quantize   0 hits, 3 misses (0 %)
        """
    )


def test_stats_of_nothing() -> None:
    assert stats_text("/c", Survey({}, {}), NOW, Style(80)) == dedent(
        """\
        cache    /c
        blobs    0, 0 B
        linked   0, 0 B: the same bytes as files of projects
        unused   0, 0 B: nothing refers to them, `llmbuild cache gc` removes them
        interim  0, 0 B: intermediate results, for later tasks
        traces   0, 0 of them the last results of projects"""
    )


def collected(dry_run: bool, **fields: int) -> Collected:
    between = INTERMEDIATES[: fields.get("intermediates", 0)]
    over, forced = fields.get("over", 0), fields.get("forced", 0)
    choice = Choice(tuple(facts().values())[2:4], forced, (), 2_950_000, 9_000, over, between)
    return Collected(choice, 2, 3, 2_950_000, 9_000, fields.get("leftovers", 0), dry_run)


@pytest.mark.parametrize(
    ("width", "cut"),
    [
        (80, "x86_64-linux-cpu-with-a-rather-long-name-t…"),
        (120, "x86_64-linux-cpu-with-a-rather-long-name-that-does-not-fit-into-eighty]"),
    ],
)
def test_gc_text(width: int, cut: str) -> None:
    assert collected_text(collected(True, leftovers=1), Style(width)) == "\n".join(
        [
            "     2.1 MB  config[smollm2, q4f32_1]",
            f"   850.0 kB  lower[smollm2, q4f32_1, {cut}",
            "would remove 2 traces and 3 blobs: 3.0 MB freed, 9.0 kB left",
            "1 leftover of failed or killed tasks would go",
        ]
    )
    assert collected_text(collected(False, forced=1, over=500, intermediates=1), Style(width)) == "\n".join(
        [
            "removed 2 traces and 3 blobs, and 1 intermediate result: 3.0 MB freed, 9.0 kB left",
            "1 trace of recent projects went too, to come down to the size",
            "500 B above the size: the rest was used just now, or a build is using it",
        ]
    )


def test_verify_text() -> None:
    good = Audit(3, 1200, 2, 2, (), 0)
    assert audit_text(good, Style(80)) == ("ok: 3 blobs (1.2 kB right), 2 traces, 2 action records, nothing is wrong")
    findings = (
        Finding("corrupt-blob", "ab" * 32, f"its content has the digest {'cd' * 32}"),
        Finding("incomplete-trace", "12" * 32, "params_shard_0.bin of its output is missing or corrupt", LABELS[1]),
        Finding("stray-file", "blobs/ab/note.txt", "it is not named as a blob"),
    )
    bad = Audit(3, 1200, 2, 1, findings, 1)
    assert audit_text(bad, Style(120)) == dedent(
        """\
        corrupt blob abababababababab
          its content has the digest cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
        incomplete result 1212121212121212 quantize[smollm2, q4f32_1]
          params_shard_0.bin of its output is missing or corrupt
        stray file blobs/ab/note.txt
          it is not named as a blob
        wrong: 3 blobs (1.2 kB right), 2 traces, 1 action record
        3 faults; `llmbuild cache verify --repair` removes them
        1 leftover of failed or killed tasks: harmless, and removed by and by"""
    )
    repaired = Audit(3, 1200, 2, 1, findings[:1], 0, repaired=1)
    assert audit_text(repaired, Style(80)).splitlines()[-2:] == [
        "repaired: 3 blobs (1.2 kB right), 2 traces, 1 action record",
        "1 fault removed, to be built again when needed",
    ]
    for result in (good, bad, repaired):
        assert all(len(line) <= 80 for line in audit_text(result, Style(80)).splitlines() if "digest" not in line)


def test_export_and_import_text() -> None:
    packed = Packed(3, 2, 2, 1200, missing=("a" * 64,), new_blobs=1, new_traces=2)
    assert packed_text(packed, "c.tar", imported=True) == (
        "imported c.tar: 2 traces, 3 blobs, 1.2 kB; 2 and 1 of them new"
    )
    assert packed_text(packed, "c.tar", imported=False) == (
        "exported 2 traces, 3 blobs, 1.2 kB to c.tar\nleft out, because not built: 1 action"
    )
    assert packed_text(packed, "c.tar", imported=False, unbuilt=LABELS[1:3]).splitlines()[1] == (
        "left out, because not built: quantize[smollm2, q4f32_1], config[smollm2, q4f32_1]"
    )


# The commands themselves.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    store = Store(tmp_path / "store")
    build(store, [write_task("a", {"x": "1"}), join_task("b", "b", "a")])
    store.close()
    return store


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["cache", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code, out, err = run(capsys, *arguments, "--json")
    assert err == ""
    return code, json.loads(out)


def test_stats(cache: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "stats")
    assert code == 0
    assert out.splitlines()[0] == f"cache    {cache.root}"
    code, value = run_json(capsys, "stats")
    assert (code, value["traces"], value["kinds"]) == (
        0,
        2,
        {
            "combine": {"traces": 1, "output": 3, "hits": 0, "misses": 1},
            "write": {"traces": 1, "output": 1, "hits": 0, "misses": 1},
        },
    )
    assert [one["label"] for one in value["largest"]] == ["b", "a"]  # type: ignore[attr-defined]
    build(Store(cache.root), [write_task("a", {"x": "1"}), join_task("c", "c", "a")])
    _, value = run_json(capsys, "stats")
    kinds: dict[str, dict[str, int]] = value["kinds"]  # type: ignore[assignment]
    assert (kinds["write"]["hits"], kinds["write"]["misses"]) == (1, 1)
    assert (kinds["combine"]["hits"], kinds["combine"]["misses"]) == (0, 2)
    assert "uses     1 hit, 3 misses (25 %), in all builds\n" in run(capsys, "stats")[1]


def test_gc(cache: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, value = run_json(capsys, "gc", "--max-size", "0")
    assert (code, value["traces"], value["over"]) == (0, 0, value["left"])
    settings = tmp_path / "config" / "llmbuild" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('max-size = "1B"\n')
    code, value = run_json(capsys, "gc", "--grace", "0s", "--dry-run")
    assert (code, value["traces"], value["left"], value["dry-run"]) == (0, 2, 0, True)
    assert run_json(capsys, "gc", "--grace", "0s")[1]["traces"] == 2
    assert run_json(capsys, "stats")[1]["bytes"] == 0


def test_verify_finds_repairs_and_exits_with_7(cache: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify")[0] == 0
    trace = next(trace for trace in cache.traces.all() if trace.label == "b")
    path = cache.cas.blob_path(cache.cas.get_tree(trace.output).files[0].digest)
    path.chmod(0o644)
    path.write_bytes(b"x")
    code, out, _ = run(capsys, "verify")
    assert code == 7
    assert f"corrupt blob {(path.parent.name + path.name)[:16]}\n" in out
    assert f"incomplete result {trace.action[:16]} b\n" in out
    code, value = run_json(capsys, "verify", "--repair")
    assert (code, value["repaired"]) == (0, 2)
    assert run(capsys, "verify")[0] == 0


def test_export_and_import(cache: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = str(tmp_path / "all.tar")
    code, out, _ = run(capsys, "export", archive, "--all")
    assert code == 0
    assert out.startswith("exported 2 traces, ")
    code, value = run_json(capsys, "import", archive, "--cache-dir", str(tmp_path / "other"))
    assert (code, value["new-traces"]) == (0, 2)
    (tmp_path / "bad.tar").write_bytes(Path(archive).read_bytes()[:5000])
    code, out, err = run(capsys, "import", str(tmp_path / "bad.tar"), "--cache-dir", str(tmp_path / "third"))
    assert (code, out) == (3, "")
    assert err.split()[:7] == f"error: {tmp_path}/bad.tar: the archive cannot be imported".split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gc", "--max-size", "many"), "error: 'many' is not a size\n  fix: write it as 10GB, 500MB or 8GiB\n"),
        (("gc", "--max-age", "10"), "error: '10' is not an age\n  fix: write it as 30d, 12h or 10m\n"),
    ],
)
def test_wrong_options(
    cache: Store, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(capsys, *arguments) == (2, "", message)


def test_every_subcommand_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("stats", "gc", "verify", "export", "import"):
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert f"example:\n  llmbuild cache {name}" in out
