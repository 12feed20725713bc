"""Converting whole checkpoints: names, order, fusing, dtypes, and every way in which a checkpoint does not fit."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from llmbuild.errors import InputError, MultiError
from llmbuild.models.parameter import Parameter, Role
from llmbuild.quantization import convert as module
from llmbuild.quantization.convert import convert, is_quantized, is_transposed, packed_names, record_order
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.reference_quant import DTYPES, dequantize, quantize, read_weights
from tests.helpers.schemes import QUANTIZING

K, N = 100, 48


@dataclass(frozen=True)
class Info:
    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class Fake:
    """A checkpoint in memory that counts what is read."""

    def __init__(self, values: Mapping[str, np.ndarray], files: Mapping[str, str] | None = None) -> None:
        self.values = dict(values)
        self.files = dict(files or {})
        self.reads: Counter[str] = Counter()

    @property
    def tensors(self) -> dict[str, Info]:
        return {n: Info(n, v.shape, v.dtype.name, v.nbytes) for n, v in self.values.items()}

    def read(self, name: str) -> np.ndarray:
        self.reads[name] += 1
        return self.values[name].copy()

    def parts(self, name: str) -> Iterator[np.ndarray]:
        flat = self.values[name].reshape(-1)
        # Parts that end within rows, one of them within the row in which it begins.
        return iter(np.split(flat.copy(), [K + 7, K + 11, 5 * K]))

    def location(self, name: str) -> str | None:
        return self.files.get(name)


PARAMETERS = (
    Parameter("embed.weight", (N, K), "embedding", ("embed.weight",)),
    Parameter("qkv.weight", (3 * N, K), "linear", ("q.weight", "k.weight", "v.weight")),
    Parameter("qkv.bias", (3 * N,), "plain", ("q.bias", "k.bias", "v.bias")),
    Parameter("heads.weight", (3 * N, K), "linear", ("heads.weight",), grouping=(4, 1, 1, 1)),
    Parameter("heads.bias", (3 * N,), "plain", ("heads.bias",), grouping=(4, 1, 1, 1)),
    Parameter("out.bias", (N,), "plain", ("out.bias",), dtype="float32"),
    Parameter("norm.weight", (K,), "plain", ("norm.weight",)),
    Parameter("lm_head.weight", (N, K), "head", ("lm_head.weight",)),
)


def values(dtype: str = "float16") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "norm.weight": (K,),
        "k.weight": (N, K),
        "heads.bias": (3 * N,),
        "q.weight": (N, K),
        "v.bias": (N,),
        "embed.weight": (N, K),
        "heads.weight": (3 * N, K),
        "v.weight": (N, K),
        "out.bias": (N,),
        "lm_head.weight": (N, K),
        "q.bias": (N,),
        "k.bias": (N,),
    }
    return {name: (rng.standard_normal(shape) * 0.02).astype(DTYPES[dtype]) for name, shape in shapes.items()}


def nothing(name: str) -> bool:
    return name.endswith("inv_freq")


def weights_of(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every parameter before quantization, put together by hand."""
    heads = source["heads.weight"].reshape(4, 3, N // 4, K)
    bias = source["heads.bias"].reshape(4, 3, N // 4)
    return {
        "embed.weight": source["embed.weight"],
        "qkv.weight": np.concatenate([source["q.weight"], source["k.weight"], source["v.weight"]]),
        "qkv.bias": np.concatenate([source["q.bias"], source["k.bias"], source["v.bias"]]),
        "heads.weight": np.concatenate([heads[:, i].reshape(N, K) for i in range(3)]),
        "heads.bias": np.concatenate([bias[:, i].reshape(N) for i in range(3)]),
        "out.bias": source["out.bias"],
        "norm.weight": source["norm.weight"],
        "lm_head.weight": source["lm_head.weight"],
    }


@pytest.mark.parametrize("source_dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", QUANTIZING)
def test_every_scheme(tmp_path: Path, name: str, source_dtype: str) -> None:
    scheme, source = SCHEMES[name], values(source_dtype)
    progress: list[tuple[int, int]] = []
    totals = convert(
        Fake(source), PARAMETERS, nothing, scheme, tmp_path, float32="exact", progress=lambda *at: progress.append(at)
    )
    stored, metadata = read_weights(tmp_path)
    wanted: dict[str, np.ndarray] = {}
    for parameter in PARAMETERS:
        weight = weights_of(source)[parameter.name]
        if is_quantized(scheme, parameter.role):
            words, scales = quantize(weight, scheme.bits, scheme.group_size, scheme.dtype)
            turn = is_transposed(scheme, parameter.role)
            weight_name, scale_name = packed_names(parameter.name)
            wanted[weight_name], wanted[scale_name] = (words.T, scales.T) if turn else (words, scales)
        else:
            wanted[parameter.name] = weight.astype(DTYPES[parameter.dtype or scheme.dtype])
    assert stored.keys() == wanted.keys()
    for key, value in wanted.items():
        assert stored[key].dtype == value.dtype, key
        assert stored[key].shape == value.shape, key
        assert stored[key].tobytes() == np.ascontiguousarray(value).tobytes(), key
    nbytes = sum(value.nbytes for value in wanted.values())
    count = sum(value.size for value in source.values())
    assert metadata == {"ParamSize": len(wanted), "ParamBytes": nbytes, "BitsPerParam": 8.0 * nbytes / count}
    assert isinstance(metadata["ParamBytes"], float)
    assert (totals.tensors, totals.nbytes, totals.parameters) == (len(wanted), nbytes, count)
    total = sum(value.nbytes for value in source.values())
    assert progress[-1] == (total, total)
    assert progress == sorted(progress)


def test_roles() -> None:
    partly, whole = SCHEMES["q4f16_2"], SCHEMES["q4f16_0"]
    assert [is_quantized(partly, role) for role in ("linear", "embedding", "head", "plain")] == [
        True,
        False,
        False,
        False,
    ]
    assert [is_quantized(whole, role) for role in ("linear", "embedding", "head", "plain")] == [True, True, True, False]
    assert [is_transposed(whole, role) for role in ("linear", "embedding", "head")] == [True, False, True]
    assert not is_quantized(SCHEMES["q0f16"], "linear")


def test_the_record_order_is_that_of_the_first_source(tmp_path: Path) -> None:
    checkpoint = Fake(values())
    order = [parameter.name for parameter in record_order(PARAMETERS, list(checkpoint.tensors))]
    assert order == [
        "norm.weight",
        "qkv.weight",  # k is the first of its sources in the checkpoint.
        "heads.bias",
        "qkv.bias",
        "embed.weight",
        "heads.weight",
        "out.bias",
        "lm_head.weight",
    ]
    convert(checkpoint, PARAMETERS, nothing, SCHEMES["q4f16_1"], tmp_path)
    stored = list(read_weights(tmp_path)[0])
    assert stored[:4] == ["norm.weight", "qkv.q_weight", "qkv.q_scale", "heads.bias"]
    assert set(checkpoint.reads.values()) == {1}
    assert checkpoint.reads.keys() == checkpoint.values.keys()


def test_a_head_that_is_made_of_the_embedding_comes_before_it() -> None:
    def made(name: str, role: Role) -> Parameter:
        return Parameter(name, (4, 4), role, ("wte.weight",))

    order = record_order([made("wte.weight", "embedding"), made("lm_head.weight", "head")], ["wte.weight"])
    assert [parameter.name for parameter in order] == ["lm_head.weight", "wte.weight"]


@pytest.mark.parametrize("name", ["q4f16_1", "q3f16_0", "q0f32"])
def test_threads_and_read_ahead_change_no_byte(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads, ahead, whole in ((1, 0, 0), (2, 64 << 20, 64 << 20), (7, 5000, 0)):
        monkeypatch.setattr(module, "COMING_BYTES", whole)
        monkeypatch.setattr(module, "READ_AHEAD", ahead)
        monkeypatch.setattr(module, "WHOLE_BYTES", whole)
        monkeypatch.setattr(module, "CAST_ELEMENTS", 1000)
        out = tmp_path / f"{threads}"
        out.mkdir()
        convert(Fake(values()), PARAMETERS, nothing, SCHEMES[name], out, threads=threads, cap=2 * N * K)
        results.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("coming", [0, 1 << 30])
def test_bad_values_are_explained_however_large_the_tensor(
    tmp_path: Path, coming: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMING_BYTES", coming)
    source = values("float32")
    source["embed.weight"][3, 4] = 1e6
    with pytest.raises(InputError, match=r"(?s)'embed\.weight' cannot be stored in float16.*1e\+06, which overflows"):
        convert(Fake(source), PARAMETERS, nothing, SCHEMES["q0f16"], tmp_path, cap=2 * N * K)


def test_dequantized_weights_are_near(tmp_path: Path) -> None:
    source = values()
    convert(Fake(source), PARAMETERS, nothing, SCHEMES["q4f16_1"], tmp_path)
    stored, _ = read_weights(tmp_path)
    back = dequantize(stored["qkv.q_weight"], stored["qkv.q_scale"], 4, 32, K)
    error = np.abs(back.astype(np.float32) - weights_of(source)["qkv.weight"].astype(np.float32))
    assert (error <= 0.51 * np.repeat(stored["qkv.q_scale"], 32, axis=1)[:, :K].astype(np.float32)).all()


def test_float32_is_stored_as_bfloat16_unless_exact(tmp_path: Path) -> None:
    source = values("float32")
    for float32, expected in (("bf16", ml_dtypes.bfloat16), ("exact", np.float32)):
        out = tmp_path / float32
        out.mkdir()
        convert(Fake(source), PARAMETERS, nothing, SCHEMES["q0f32"], out, float32=float32)  # type: ignore[arg-type]
        stored, _ = read_weights(out)
        assert (stored["norm.weight"] == source["norm.weight"].astype(expected).astype(np.float32)).all()
        assert (out / "tensor-cache-b16.json").exists() is (float32 == "bf16")


def test_known_extra_tensors_are_ignored(tmp_path: Path) -> None:
    source = values() | {"layers.0.rotary_emb.inv_freq": np.ones(7, np.float32)}
    checkpoint = Fake(source)
    totals = convert(checkpoint, PARAMETERS, nothing, SCHEMES["q0f16"], tmp_path)
    assert totals.parameters == sum(value.size for value in values().values())
    assert checkpoint.reads["layers.0.rotary_emb.inv_freq"] == 0


def refuse(source: Mapping[str, np.ndarray], tmp_path: Path, scheme: str = "q4f16_1") -> Exception:
    checkpoint = Fake(source, dict.fromkeys(source, "model-00002-of-00002.safetensors"))
    with pytest.raises((InputError, MultiError)) as caught:
        convert(checkpoint, PARAMETERS, nothing, SCHEMES[scheme], tmp_path)
    assert not list(tmp_path.glob("*.json"))
    return caught.value


def test_a_missing_tensor(tmp_path: Path) -> None:
    source = values()
    del source["k.weight"]
    assert "tensor 'k.weight' is missing" in str(refuse(source, tmp_path))


def test_an_unexpected_tensor(tmp_path: Path) -> None:
    message = str(refuse(values() | {"router.weight": np.ones(3, np.float16)}, tmp_path))
    assert "unexpected tensor 'router.weight'" in message
    assert "model-00002-of-00002.safetensors" in message


@pytest.mark.parametrize("shape", [(N, K - 1), (N - 1, K), (N * K,), (), (N, K, 1)], ids=str)
def test_a_wrong_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for name in ("embed.weight", "v.weight"):
        message = str(refuse(values() | {name: np.ones(shape, np.float16)}, tmp_path))
        assert "shape mismatch" in message
        assert f"'{name}' {list(shape)}" in message
        assert "model-00002-of-00002.safetensors" in message


def test_a_dtype_without_floating_point(tmp_path: Path) -> None:
    message = str(refuse(values() | {"q.weight": np.ones((N, K), np.int8)}, tmp_path))
    assert "'q.weight' holds no plain floating-point weights" in message
    assert "int8" in message


@pytest.mark.parametrize("scheme", ["q4f16_1", "q0f16", "q0f32", "q4bf16_1"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["v.weight", "norm.weight", "heads.weight", "k.bias", "out.bias"])
def test_nan_and_infinity_name_tensor_and_file(tmp_path: Path, name: str, bad: float, scheme: str) -> None:
    source = values()
    source[name].reshape(-1)[-1] = bad
    message = str(refuse(source, tmp_path, scheme))
    assert f"tensor '{name}' cannot be stored" in message
    assert "model-00002-of-00002.safetensors" in message
    assert ("NaN" if np.isnan(bad) else "infinity") in message


@pytest.mark.parametrize("scheme", ["q4f16_1", "q0f16"])
def test_an_overflow_of_half_names_the_tensor(tmp_path: Path, scheme: str) -> None:
    source = values("bfloat16")
    source["v.weight"][3, 3] = 70000
    message = str(refuse(source, tmp_path, scheme))
    assert "tensor 'v.weight' cannot be stored in float16" in message
    assert "overflows" in message
    assert "wider dtype" in message


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from llmbuild.models.parameter import Parameter, Role
from llmbuild.quantization.convert import convert
from llmbuild.quantization.scheme import SCHEMES
from tests.quantization.test_convert import Info

SHAPE = (4096, 4096)

class Constant:
    tensors = {f"t{i}.weight": Info(f"t{i}.weight", SHAPE, "float16", 2 << 24) for i in range(64)}
    def read(self, name):
        return np.full(SHAPE, 0.5, np.float16)
    def parts(self, name):
        return (np.full(1 << 21, 0.5, np.float16) for _ in range(8))
    def location(self, name):
        return None

parameters = [Parameter(name, SHAPE, "linear", (name,)) for name in Constant.tensors]
convert(Constant(), parameters, lambda name: False, SCHEMES[sys.argv[1]], Path(sys.argv[2]))
# Not getrusage: its maximum survives exec and may be that of the parent.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["q4f16_1", "q0f16", "q0f32"])
def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path, scheme: str) -> None:
    # 2 GiB of input in tensors of 32 MiB: three quarters of a gibibyte hold the interpreter and all that is in flight.
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, scheme, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 768 * 1024
