"""Any configuration of a family is read as transformers reads it, or refused with the key that is at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbuild.errors import InputError
from llmbuild.models.config_json import OTHER_SPELLINGS
from llmbuild.models.family import Overrides
from llmbuild.models.maths_keys import MATHS_KEYS
from llmbuild.models.registry import families, family
from tests.helpers.config_oracle import KNOWN, NotLoaded, differences, read_by_llmbuild, read_by_transformers
from tests.helpers.end_tokens import ends_by_llmbuild, ends_by_transformers

ABSENT = object()
LAYERS = 2


def maybe(*values: Any, null: bool = True) -> st.SearchStrategy[Any]:
    """Absent (as most keys are in most files), null, or one of some values."""
    return st.sampled_from([ABSENT, ABSENT, *values, *values, *([None] if null else [])])


ROPE = st.fixed_dictionaries(
    {},
    optional={
        "rope_theta": st.sampled_from([10000.0, 500000, 5e5, 100.0]),
        "rope_type": st.sampled_from(
            ["default", "llama3", "linear", "yarn", "dynamic", "longrope", "proportional", "su"]
        ),
        "type": st.sampled_from(["default", "llama3", "linear", "yarn", "dynamic"]),
        "factor": st.sampled_from([1.0, 1, 8.0, 0.5, None]),
        "low_freq_factor": st.sampled_from([1.0, 2]),
        "high_freq_factor": st.sampled_from([4.0, 2.0]),
        "original_max_position_embeddings": st.sampled_from([16, 64]),
        "partial_rotary_factor": st.sampled_from([1.0, 0.5]),
        "attention_factor": st.sampled_from([None, 1.25]),
        "beta_fast": st.sampled_from([None, 16, 0]),
        "beta_slow": st.sampled_from([None, 2.0]),
        "mscale": st.sampled_from([None, 0.7, 0]),
        "mscale_all_dim": st.sampled_from([None, 1.5]),
        "truncate": st.booleans(),
        "short_factor": st.sampled_from([[1.0, 1.5], [1, 2, 3, 4]]),
        "long_factor": st.sampled_from([[2.0, 3.5], [1.5, 2, 3, 8.0]]),
    },
)
SCALED = st.sampled_from(["linear", "yarn", "dynamic", "longrope", "proportional"]).flatmap(
    lambda kind: ROPE.map(
        lambda values: {
            "factor": 4.0,
            "short_factor": [1.0, 1.5, 2.0, 3.0],
            "long_factor": [2.0, 2.5, 3.0, 5.0],
            **values,
            "rope_type": kind,
        }
    )
)
LLAMA3 = ROPE.map(
    lambda values: {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        **values,
        "rope_type": "llama3",
    }
)
ROPES = st.one_of(st.just(ABSENT), st.just(ABSENT), st.none(), st.just({}), ROPE, LLAMA3, SCALED)
ROPES_OF_A_KIND = st.one_of(st.none(), st.just({}), ROPE, LLAMA3, SCALED)
PLAIN = st.one_of(st.none(), st.just({}), st.sampled_from([{"rope_theta": 500.0, "rope_type": "default"}]), ROPE)
OTHER = sorted({name for names in OTHER_SPELLINGS.values() for name in names})
KINDS = st.lists(st.sampled_from(["full_attention", "full_attention", "sliding_attention"]), min_size=1, max_size=3)


ENDS = maybe(0, 2, 3, [2], [2, 3], [3, 2, 3], -1, [-1], [-1, 3], [], 99, [2, 99], "2", 2.0, True)
OWN_END = maybe("</s>", "<e>", {"content": "<e>", "__type": "AddedToken"})


@st.composite
def end_tokens(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Which tokens end an answer, by the files that can say so."""
    files: dict[str, dict[str, Any]] = {"config.json": {}}
    settings = draw(
        st.sampled_from([{"tokenizer_class": "PreTrainedTokenizerFast"}, {"tokenizer_class": "LlamaTokenizer"}])
    )
    if draw(st.booleans()):
        files["tokenizer_config.json"] = settings | draw(st.sampled_from([{}, {"added_tokens_decoder": {}}]))
    if draw(st.booleans()):
        files["special_tokens_map.json"] = {}
    if draw(st.booleans()):
        files["generation_config.json"] = {}
    for name, content in files.items():
        key, values = ("eos_token", OWN_END) if "token" in name else ("eos_token_id", ENDS)
        value = draw(values)
        if value is not ABSENT:
            content[key] = value
    return files


@st.composite
def configs(draw: st.DrawFn, model_type: str) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 3, 4]))
    size = draw(st.sampled_from([4, 8, 10]))
    config: dict[str, Any] = {
        "model_type": model_type,
        "architectures": draw(st.sampled_from([None, list(families()[model_type].architectures[:1])])),
        "hidden_size": heads * size,
        "intermediate_size": draw(st.sampled_from([12, 24])),
        "num_attention_heads": heads,
        "num_hidden_layers": LAYERS,
        "vocab_size": draw(st.sampled_from([50, 64])),
        "pad_token_id": 0,
    }
    like = next(iter(families()[model_type].classes.values()))
    eps = next((key for key in like.defaults if "eps" in key), "rms_norm_eps")
    optional = {
        "num_key_value_heads": st.one_of(
            st.sampled_from([one for one in (1, 2, 3, 4) if heads % one == 0]), maybe(heads)
        ),
        "head_dim": maybe(4, 6, 16),
        "hidden_act": maybe(
            "silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "quick_gelu", "swish", "gelu_fast"
        ),
        "max_position_embeddings": maybe(64, 256),
        eps: maybe(1e-5, 1e-6, 1e-2),
        "tie_word_embeddings": maybe(True, False),
        "attention_bias": maybe(True, False),
        "mlp_bias": maybe(True, False),
        "use_parallel_residual": maybe(True, False),
        "rope_theta": maybe(10000.0, 500000, 1e6),
        "rotary_emb_base": maybe(10000, 300),
        "rotary_pct": maybe(0.25, 0.5, 1.0),
        "partial_rotary_factor": maybe(0.5, 1.0),
        "original_max_position_embeddings": maybe(32, 64),
        "rope_scaling": ROPES,
        "rope_parameters": ROPES,
        "sliding_window": maybe(8, 4096),
        "use_sliding_window": maybe(True, False),
        "max_window_layers": maybe(0, 1, 2, 28),
        "layer_types": st.one_of(st.just(ABSENT), st.just(ABSENT), st.none(), KINDS),
        "is_causal": st.sampled_from([ABSENT] * 8 + [True, False]),
    }
    if like.ropes_by_layer:
        by_kind = st.fixed_dictionaries({}, optional={"full_attention": ROPES_OF_A_KIND, "sliding_attention": PLAIN})
        optional |= {"rope_parameters": st.one_of(by_kind, ROPES), "rope_local_base_freq": maybe(100.0, 10000)}
    if model_type == "ministral3":
        grown = st.sampled_from([{"llama_4_scaling_beta": 0.1}, {"llama_4_scaling_beta": 0}, {}])
        optional["rope_parameters"] = st.one_of(st.tuples(SCALED, grown).map(lambda both: both[0] | both[1]), ROPES)
    # A few keys at a time, so that not every example is refused for one of them.
    chosen = draw(st.lists(st.sampled_from(sorted(optional)), max_size=8, unique=True))
    for key in chosen:
        value = draw(optional[key])
        if value is not ABSENT:
            config[key] = value
    if "num_key_value_heads" not in config and model_type != "gpt_neox" and draw(st.integers(0, 3)):
        config["num_key_value_heads"] = heads
    if model_type == "helium":
        # The class has 128, and the output takes no other size than the hidden one.
        config["head_dim"] = size
    if model_type == "mistral" and "layer_types" in config:
        # transformers' Ministral, which such a file is read as, cannot do without.
        config["head_dim"] = 8
    if draw(st.integers(0, 5)) == 0:
        key = draw(st.sampled_from(sorted(set(MATHS_KEYS) - set(optional))))
        config[key] = draw(st.sampled_from([None, 0, 1, True, False, 2, 0.5]))
    if draw(st.integers(0, 5)) == 0:
        config[draw(st.sampled_from([name for name in OTHER if name != eps]))] = draw(
            st.sampled_from([1, 16, 1e-5, "gelu"])
        )
    return config


def named(error: InputError, config: dict[str, Any]) -> bool:
    """Whether an error of a configuration names one of its keys."""
    file, _, key = str(error.where).partition(": ")
    renamed = families()[config["model_type"]].classes[config["model_type"]].renamed
    meant = [renamed[name] for name in config if name in renamed]
    return file == "config.json" and bool(key) and any(key.split(".")[0] == name for name in (*config, *meant, *FIELDS))


FIELDS = ("num_key_value_heads", "head_dim", "rotary_pct", "partial_rotary_factor", "rope_scaling")
"""Keys whose default may be at fault."""


def check(model_type: str, directory: Path, config: dict[str, Any]) -> str:
    """Raise AssertionError unless the configuration is read right or refused well; says which of the two it was."""
    try:
        product = family(model_type).configure(config, Overrides())
    except InputError as error:
        assert named(error, config), error
        return "refused"
    try:
        oracle = read_by_transformers(config, directory)
    except NotLoaded as error:
        raise AssertionError(f"taken, but transformers says: {error}") from error
    found = differences(read_by_llmbuild(families()[model_type], product), oracle)
    assert not found, found
    return "taken"


def check_ends(directory: Path, config: dict[str, Any], said: dict[str, dict[str, Any]]) -> str:
    """As `check`, of the tokens that end an answer."""
    files = said | {"config.json": config | said["config.json"]}
    try:
        ends, stops = ends_by_llmbuild(directory, files)
    except InputError as error:
        assert str(error.where) in ("config.json: eos_token_id", "generation_config.json: eos_token_id"), error
        return "refused"
    wanted = ends_by_transformers(files)
    assert (ends, sorted(stops)) == (wanted, sorted(set(wanted)))
    return "taken"


def search(model_type: str, directory: Path, examples: int) -> None:
    outcomes = {"taken": 0, "refused": 0}
    ends = {"taken": 0, "refused": 0}

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(configs(model_type), end_tokens())
    def one(config: dict[str, Any], said: dict[str, dict[str, Any]]) -> None:
        outcome = check(model_type, directory, config)
        outcomes[outcome] += 1
        if outcome == "taken":
            ends[check_ends(directory, config, said)] += 1

    one()
    assert outcomes["taken"] > examples / 5, outcomes
    assert ends["taken"] > examples / 20, ends


@pytest.mark.parametrize("model_type", KNOWN)
def test_any_configuration_is_read_as_transformers_reads_it(model_type: str, tmp_path: Path) -> None:
    search(model_type, tmp_path, 75)


@pytest.mark.full
@pytest.mark.parametrize("model_type", KNOWN)
def test_many_configurations_are_read_as_transformers_reads_them(model_type: str, tmp_path: Path) -> None:
    search(model_type, tmp_path, 2000)
