"""Sources, optimization flags, override strings and schemes, each on its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.manifest.lock import Lock
from llmbuild.manifest.opt import FLAGS, LEVELS, make_opt, parse_opt, resolve_opt
from llmbuild.manifest.sizes import PrecedenceLevel, check_sizes, parse_overrides
from llmbuild.manifest.source import parse_source
from llmbuild.sources import lock_key
from llmbuild.sources.kind import Source, SourceError
from llmbuild.targets.kinds import device_kind
from llmbuild.tomlfile import KeyPath

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.mark.parametrize(
    ("text", "options", "source"),
    [
        ("models/x", {}, Source("path", {"path": "models/x"})),
        ("/abs/x/", {}, Source("path", {"path": "/abs/x/"})),
        ("models/x/config.json", {}, Source("path", {"path": "models/x"})),
        ("config.json", {}, Source("path", {"path": "."})),
        ("a/B.GGUF", {}, Source("gguf", {"path": "a/B.GGUF"})),
        ("hf:org/name", {}, Source("hf", {"repo": "org/name", "revision": "main"})),
        ("hf:gpt2@v1.0", {}, Source("hf", {"repo": "gpt2", "revision": "v1.0"})),
        ("hf:o/n", {"revision": "dev"}, Source("hf", {"repo": "o/n", "revision": "dev"})),
        ("hf:o/n@dev", {"revision": "dev"}, Source("hf", {"repo": "o/n", "revision": "dev"})),
        ("hf:o/n/q/m.gguf@x", {}, Source("hf", {"repo": "o/n", "revision": "x", "path": "q/m.gguf"})),
        ("https://h/x.gguf", {"sha256": SHA}, Source("https", {"url": "https://h/x.gguf", "sha256": SHA})),
        ("http://127.0.0.1:8/x", {"sha256": SHA}, Source("https", {"url": "http://127.0.0.1:8/x", "sha256": SHA})),
        ("pypi:a-b==1.0/c/d.gguf", {}, Source("pypi", {"name": "a-b", "version": "1.0", "path": "c/d.gguf"})),
        ("pypi:a==1/d", {"sha256": SHA}, Source("pypi", {"name": "a", "version": "1", "path": "d", "sha256": SHA})),
    ],
)
def test_sources(text: str, options: dict[str, str], source: Source) -> None:
    assert parse_source(text, **options) == source


@pytest.mark.parametrize(
    ("text", "options", "key"),
    [
        ("", {}, "source"),
        (" x", {}, "source"),
        ("hf:", {}, "source"),
        ("hf:org/name@", {}, "source"),
        ("hf:../x", {}, "source"),
        ("hf:o/n", {"revision": ""}, "revision"),
        ("hf:o/n", {"sha256": SHA}, "sha256"),
        ("https://h/x", {"sha256": SHA.upper()}, "sha256"),
        ("https://user:word@h/x", {"sha256": SHA}, "source"),
        ("https://h", {"sha256": SHA}, "source"),
        ("pypi:a>=1/x", {}, "source"),
        ("pypi:a==1", {}, "source"),
        ("git+ssh://x/y", {}, "source"),
    ],
)
def test_wrong_sources(text: str, options: dict[str, str], key: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_source(text, **options)
    assert caught.value.key == key


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_those_of_mlc_on_cuda_and_off_elsewhere(level: str) -> None:
    on_cuda, notes = resolve_opt(parse_opt(level), "cuda")
    assert on_cuda == LEVELS[level]
    assert notes == ()
    on_cpu, notes = resolve_opt(parse_opt(level), "llvm")
    assert set(on_cpu.values()) == {False, "NONE"}
    assert notes == ()
    on_rocm, _ = resolve_opt(parse_opt(level), "rocm")
    assert on_rocm["cublas_gemm"] == LEVELS[level]["cublas_gemm"]
    assert not on_rocm["cutlass"]


def test_flags() -> None:
    opt = parse_opt("cutlass_attn=1;cutlass_norm=0;cublas_gemm=0;cudagraph=0")  # As the documentation of 2024 has it.
    assert opt.flags["cutlass"] is True
    assert opt.flags["flashinfer"] is True
    assert opt.named == {"cutlass", "cublas_gemm", "cudagraph"}
    assert parse_opt("O3; cudagraph=0 ;").flags == {**LEVELS["O3"], "cudagraph": False}
    assert make_opt("O2", {"ipc_allreduce_strategy": "AUTO"}).flags["ipc_allreduce_strategy"] == "AUTO"
    _, notes = resolve_opt(parse_opt("cutlass=1;cublas_gemm=0;ipc_allreduce_strategy=AUTO"), "metal")
    assert [note.split()[0] for note in notes] == ["cutlass", "ipc_allreduce_strategy"]


@pytest.mark.parametrize(("scheme", "can"), [("q0f16", True), ("q4f16_1", False), ("e4m3_e4m3_f16", True)])
def test_cublas_depends_on_the_scheme(scheme: str, can: bool) -> None:
    flags, notes = resolve_opt(parse_opt("cublas_gemm=1"), "cuda", scheme)
    assert flags["cublas_gemm"] is can
    (note,) = notes
    assert ("no TVM on PyPI has its library" in note) is can
    assert tuple(flags) == FLAGS


def test_a_flag_that_changes_nothing_is_said_where_it_was_named() -> None:
    _, notes = resolve_opt(parse_opt("O3;cudagraph=1;flashinfer=1;faster_transformer=0"), "cuda")
    assert notes == ("flashinfer was asked for and has no effect: no TVM on PyPI has its library",)


@pytest.mark.parametrize("text", ["", ";", "O9", "O2;O3", "cutlass", "cutlass=2", "ipc_allreduce_strategy=x", "x=1"])
def test_wrong_flags(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_opt(text)


def test_overrides() -> None:
    assert parse_overrides("context_window_size=1024;prefill_chunk_size=128") == {
        "context-window-size": 1024,
        "prefill-chunk-size": 128,
    }
    assert parse_overrides("--sliding_window=-1; tensor_parallel_shards=2;disaggregation=True;") == {
        "sliding-window-size": -1,
        "tensor-parallel-shards": 2,
        "disaggregation": True,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x=1",
        "max_batch_size=",
        "max_batch_size=0",
        "sliding_window=0",
        "disaggregation=2",
        "max_batch_size=1;max_batch_size=1",
        "attention_sink_size=-1",
    ],
)
def test_wrong_overrides(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_overrides(text)


def _complaints(*layers: dict[str, int], device: str = "cuda") -> list[tuple[KeyPath, str]]:
    found: list[tuple[KeyPath, str]] = []
    check_sizes(
        [PrecedenceLevel(values, {key: (str(index), key) for key in values}) for index, values in enumerate(layers)],
        device_kind(device),
        lambda path, what, fix: found.append((path, what)),
        several=device == "cuda",
    )
    return found


def test_sizes_are_compared_as_they_take_effect() -> None:
    window, chunk = "context-window-size", "prefill-chunk-size"
    assert _complaints({window: 8, chunk: 8}) == []
    assert _complaints({window: 8}, {chunk: 16})[0][0] == ("1", chunk)
    assert _complaints({window: 8}, {chunk: 16}, {window: 32}) == []
    assert _complaints({window: 8, "sliding-window-size": 4}, {chunk: 16}) == []
    assert _complaints({"sliding-window-size": 4, "attention-sink-size": 4})[0][0] == ("0", "attention-sink-size")
    assert _complaints({"sliding-window-size": -1, "attention-sink-size": 4}) == []
    assert [what for _, what in _complaints({"tensor-parallel-shards": 2})] == [
        "tensor-parallel-shards 2 is not built yet: a library computes on one device"
    ]
    assert _complaints({"tensor-parallel-shards": 2}, {"tensor-parallel-shards": 1}) == []
    assert len(_complaints({"tensor-parallel-shards": 2}, device="llvm")) == 1
    assert _complaints({"tensor-parallel-shards": 2}, {"tensor-parallel-shards": 1}, device="llvm") == []


odd = st.text(st.one_of(st.sampled_from("/?#@:[]%.\\ \n\0a1²é"), st.characters()), max_size=20)
beginnings = st.sampled_from(
    ["", "hf:", "hf:a/b@", "hf:a/b/", "pypi:a==1/", "https://", "https://[", "https://h/", "https://h:"]
)


@given(st.tuples(beginnings, odd).map("".join), st.none() | st.text(max_size=3), st.sampled_from([None, "a" * 64]))
def test_any_text_is_a_source_that_a_lock_can_name_or_an_error(
    text: str, revision: str | None, sha256: str | None
) -> None:
    try:
        source = parse_source(text, revision, sha256)
    except SourceError as error:
        assert error.what
    else:
        Lock.from_json({lock_key(source): {"commit": "a" * 40}}, {})


@pytest.mark.parametrize("text", ["https://[h/x.gguf?sig=SECRET", "http://h/x.gguf?sig=SECRET", "https://?sig=SECRET"])
def test_an_error_of_a_url_does_not_show_its_query(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    assert "SECRET" not in caught.value.what
