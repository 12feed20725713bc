"""config.json read as transformers reads it: every value explicit, and no key that bears on the result passed over in silence.

The outcome is in one spelling, which the families' rows read beside that of MLC's `model_config`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from llmbuild.canonical import Json
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.layer_types import check_layer_types, resolve_layer_types, resolve_local_layers
from llmbuild.models.maths_keys import MATHS_KEYS, MODEL_TYPES
from llmbuild.models.rope import resolve_rope, resolve_ropes_by_layer
from llmbuild.models.values import ACTIVATIONS, ConfigValues, shown
from llmbuild.models.wrappers import TEXT_OF

OTHER_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("n_kv_heads", "num_kv_heads"),
    "vocab_size": ("padded_vocab_size",),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length"),
    "rms_norm_eps": ("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
    "layer_norm_eps": ("rms_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
    "norm_epsilon": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"),
    "sliding_window": ("sliding_window_size",),
    "hidden_act": ("hidden_activation", "activation_function"),
    "hidden_activation": ("hidden_act", "activation_function"),
}
"""Names that other families have for the same value, which no class of a family reads."""


def vocabulary_key(config: Mapping[str, Json]) -> str:
    """The key of a config.json that says how many tokens there are, from the content or from that of its text."""
    place = "text_config." if TEXT_OF in config else ""
    names = ("vocab_size", *OTHER_SPELLINGS["vocab_size"])
    return place + next((name for name in names if name in config), names[0])


def read_config_json(
    source: ConfigValues,
    classes: Mapping[str, ConfigClass],
    ignore: Sequence[str] = (),
    others: Callable[[], Collection[str]] = frozenset,
) -> ConfigValues:
    """The content of a config.json for a model of the family `source.model_type`, with every key that the family reads.

    `classes` are those of the family, by model type; the first one counts for a type that transformers does not know.
    `ignore` are keys that count as absent, `others` model types of families that transformers lacks.  Each value that is there
    and does not count is noted.  Raises InputError for a model of another family, for a key that would change the result and
    that the family does not read, and for values that transformers does not take or that contradict each other.
    """
    own = source.values.get("model_type")
    _check_model_type(source, own, classes, ignore, others)
    known = own if isinstance(own, str) and own in classes else next(iter(classes))
    like = classes[known]
    _note_ignored(source, ignore)
    given = source.but({key: value for key, value in source.values.items() if key not in ignore})
    given = given.but(_renamed(given, like))
    _note_other_names(given, like)
    given = given.in_common_names()
    has_rope = given.values.get("rope_scaling") or given.values.get("rope_parameters") is not None
    if like.default_rope is not None and not has_rope:
        given = given.but({**given.values, "rope_parameters": like.default_rope})
    if like.adapted is not None:
        given = given.but(like.adapted(given))
    unread = _unread_keys(given, like, own if isinstance(own, str) else known, known=own is None or own in classes)
    values = {key: value for key, value in given.values.items() if key not in unread}
    for key, default in like.defaults.items():
        values[key] = _explicit(given, key, like) if key in given.values else default
    found = source.but(values)
    found = _without_groups(found, like)
    values = dict(found.values)
    _check_other_spellings(found, own, classes, like)
    layers = found.integer("num_hidden_layers")
    check_layer_types(given, layers)
    values |= _ropes(given, like, found.integer("max_position_embeddings"))
    if like.ropes_by_layer or like.without_window is not None:
        values["local_layers"] = resolve_local_layers(found, like.layer_rule, layers, like.without_window)
    values |= resolve_layer_types(found, like.layer_rule, layers)
    for key in ("rope_parameters", "position_embedding_base", "sliding_window_size"):
        values.pop(key, None)
    return source.but(values)


def _ropes(given: ConfigValues, like: ConfigClass, positions: int) -> Mapping[str, Json]:
    """The values of RoPE, which are null in a class without it."""
    if not like.rope:
        return {"rope_theta": None, "rope_scaling": None}
    local: Mapping[str, Json] = {}
    if like.ropes_by_layer:
        rope, of_windows = resolve_ropes_by_layer(given, like, positions)
        local = {"rope_local_base_freq": of_windows.theta}
    else:
        rope = resolve_rope(given, like, positions)
    partial = {} if like.partial is None else {like.partial: rope.partial}
    return {"rope_theta": rope.theta, "rope_scaling": rope.scaling, **partial, **local}


def _check_model_type(
    source: ConfigValues,
    own: Json,
    classes: Mapping[str, ConfigClass],
    ignore: Sequence[str],
    others: Callable[[], Collection[str]],
) -> None:
    """A config.json of another family that is known would be read with the wrong defaults, and its model is another."""
    if own is None or "model_type" in ignore:
        return
    if not isinstance(own, str):
        raise source.error("model_type", f"must be a string, not {shown(own)}")
    if own in classes:
        return
    names = source.values.get("architectures")
    remote = own not in MODEL_TYPES and own in others()
    if own not in MODEL_TYPES and not remote:
        # transformers' class that is named reads it with a warning, and its own defaults.
        source.note(
            f"config.json: model_type '{own}' is no causal language model of transformers; "
            + (f"architectures = {shown(names)} counts" if names else f"it is read as {source.model_type}")
        )
        return
    says = f"; architectures says {shown(names)}" if names else ""
    raise source.error(
        "model_type",
        f"is '{own}', which is another family than '{source.model_type}'",
        why=f"the checkpoint's own code goes by model_type{says}"
        if remote
        else f"transformers goes by model_type and computes a {own} model{says}",
        fix=f"remove a model-type of the manifest that is not {own}, or, if the checkpoint is a {source.model_type} model, "
        'set ignore-keys = ["model_type"] in the model\'s table',
    )


def _note_ignored(source: ConfigValues, ignore: Sequence[str]) -> None:
    for key in ignore:
        if key in source.values:
            source.note(f"config.json: {key} = {shown(source.values[key])} counts as absent, as ignore-keys says")
        else:
            source.note(f"ignore-keys names {key}, which config.json does not have")


def _renamed(source: ConfigValues, like: ConfigClass) -> Mapping[str, Json]:
    """Names that the class takes for others win over them, as transformers sets them last."""
    values = dict(source.values)
    for name, meant in like.renamed.items():
        if name not in values:
            continue
        value = values.pop(name)
        if values.get(meant, value) != value:
            source.note(
                f"config.json: {name} = {shown(value)} counts, and {meant} = {shown(values[meant])} does not, "
                "as in transformers"
            )
        values[meant] = value
    return values


def _note_other_names(source: ConfigValues, like: ConfigClass) -> None:
    """Name what another family's names have, where the class has names of its own, and RoPE where it has none."""
    unread = {name: source.values.get(own) for name, own in source.spelling.items()}
    if not like.rope:
        unread |= dict.fromkeys(("rope_theta", "rope_scaling", "rope_parameters"))
    for name, counts in unread.items():
        value = source.values.get(name)
        if value not in (None, counts):
            source.note(f"config.json: {name} = {shown(value)} is not read, as {like.title} does not read it")


def _unread_keys(source: ConfigValues, like: ConfigClass, own: str, *, known: bool) -> set[str]:
    """The keys of `MATHS_KEYS` that are there and not read; raises InputError for one that transformers reads."""
    read = {*like.defaults, like.partial, like.local_theta, "original_max_position_embeddings"}
    if known and like.rope:
        read.add("partial_rotary_factor")
    unread = {key for key in MATHS_KEYS if key in source.values and key not in read}
    for key in sorted(unread):
        value = source.values[key]
        if MATHS_KEYS[key].is_neutral(value):
            continue
        if not MATHS_KEYS[key].is_read_by(own):
            source.note(
                f"config.json: {key} = {shown(value)} is not read, as transformers does not read it of a {own} model"
            )
            continue
        if key in ("sliding_window", "attention_chunk_size") and _is_never_filled(source, like, value):
            source.note(
                f"config.json: {key} = {shown(value)} is not read, as no text within max_position_embeddings fills it"
            )
            continue
        raise source.error(
            key,
            f"is {shown(value)}, which is not supported for {source.model_type}",
            why=f"transformers reads this key for {own} models"
            if own in MODEL_TYPES
            else f"what it means for model_type '{own}' is not known",
            fix=f'choose another checkpoint, or set ignore-keys = ["{key}"] in the model\'s table if it changes nothing',
        )
    return unread


def _without_groups(source: ConfigValues, like: ConfigClass) -> ConfigValues:
    """Without a number of key-value heads where the class has none: each attention head has its own."""
    groups, heads = source.values.get("num_key_value_heads"), source.values.get("num_attention_heads")
    if "num_key_value_heads" in like.defaults or "num_key_value_heads" not in source.values:
        return source
    if groups is not None and groups != heads:
        source.note(f"config.json: num_key_value_heads = {shown(groups)} is not read, as {like.title} has none")
    return source.but({key: value for key, value in source.values.items() if key != "num_key_value_heads"})


def _is_never_filled(source: ConfigValues, like: ConfigClass, window: Json) -> bool:
    positions = source.values.get("max_position_embeddings", like.defaults["max_position_embeddings"])
    return isinstance(window, int) and isinstance(positions, int) and window >= positions


def _explicit(source: ConfigValues, key: str, like: ConfigClass) -> Json:
    """A value that is there: null only where transformers takes null, and 0 only where it is a number of layers, of which a
    period of 0 is what transformers saves of a model without windows.

    What is no flag where one is needed is left to the reader of flags.
    """
    value = source.values[key]
    if value is None:
        if key not in like.nullable:
            default = like.defaults[key]
            meant = "" if default is None else f", which means {shown(default)},"
            raise source.error(
                key,
                "is null",
                why=f"transformers takes no null there for {like.name}",
                fix=f"remove the key{meant} or write a value",
            )
        return None
    number = not isinstance(value, bool) and not isinstance(like.defaults[key], bool)
    if value == 0 and number and key not in ("max_window_layers", "sliding_window_pattern"):
        raise source.error(key, f"is {shown(value)}, with which no model computes")
    return value


def _check_other_spellings(
    source: ConfigValues, own: Json, classes: Mapping[str, ConfigClass], like: ConfigClass
) -> None:
    """A value under another family's name does not count; where the right name is missing, the error says so."""
    for key, names in OTHER_SPELLINGS.items():
        for name in names:
            other = source.values.get(name)
            if other is None or name in like.defaults or (key not in like.defaults and key not in _SIZES):
                continue
            value = source.values.get(key)
            if value is None and key in _SIZES:
                raise source.error(
                    key,
                    f"is missing: {name} = {shown(other)} is another family's name",
                    fix=f"rename {name} to {source.spelled(key)}",
                )
            if value is None or other == value or (key.startswith("hidden_act") and _same_function(other, value)):
                continue
            if isinstance(own, str) and own not in classes:
                raise source.error(
                    key,
                    f"is {shown(value)}, and {name} is {shown(other)}",
                    why=f"which of the two counts for model_type '{own}' is not known",
                    fix=f'set ignore-keys = ["{name}"] in the model\'s table, or correct {key}',
                )
            source.note(
                f"config.json: {name} = {shown(other)} is not read, and {source.spelled(key)} = {shown(value)} counts, "
                "as in transformers"
            )


_SIZES = frozenset({"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"})


def _same_function(one: Json, other: Json) -> bool:
    known = [ACTIVATIONS.get(name) for name in (one, other) if isinstance(name, str)]
    return len(known) == 2 and known[0] is not None and known[0] == known[1]
