"""A family of architectures: its configuration, its parameters and its decoder, from one file's data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.config_json import read_config_json
from llmbuild.models.family import ModelConfig, Overrides, flattened
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.parameter import Parameter
from llmbuild.models.parameters import parameters
from llmbuild.models.rows import Row, read_rows
from llmbuild.models.spec import DecoderSpec
from llmbuild.models.values import ConfigValues, no_note
from llmbuild.models.windows import window_changes
from llmbuild.models.wrappers import TEXT_OF, text_config


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """One architecture: its configuration as rows in MLC's order, and its decoder as data.

    `model_type` is MLC's name, `architectures` are Hugging Face's class names, and `classes` transformers' configuration classes
    by their model type.  `ignored` are endings of names of buffers that no parameter needs, `masks` those of causal masks;
    `head` is the checkpoint's name of the final layer; with `keeps_head` a stored one is a parameter though it equals the
    embedding, as MLC's module of such a family is never tied.  `spelling` has this family's own names, in config.json and in
    `model_config`, of keys that other families have too, by their names.  `others` gives the model types of all families of which
    transformers has no class, which only a configuration with an unknown one needs.  `gguf` says what its GGUF files are like.
    """

    model_type: str
    architectures: tuple[str, ...]
    rows: tuple[Row, ...]
    decoder: Callable[[ModelConfig], DecoderSpec]
    classes: Mapping[str, ConfigClass]
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)
    masks: tuple[str, ...] = ()
    head: str = "lm_head.weight"
    keeps_head: bool = False
    others: Callable[[], Collection[str]] = frozenset
    gguf: GgufArchitecture | None = None
    spelling: Mapping[str, str] = field(default_factory=dict)

    def configure(
        self,
        source: Mapping[str, Json],
        overrides: Overrides,
        *,
        ignore: Sequence[str] = (),
        note: Callable[[str], None] = no_note,
    ) -> ModelConfig:
        """From the content of config.json, of a text model or of one that has such a model's in it.  Raises InputError.

        The keys in `ignore` count as absent of a config.json.  Each value of one that does not count goes to `note`.
        """
        source = text_config(source)
        within = "text_config." if TEXT_OF in source else ""
        given = ConfigValues(self.model_type, source, note, self.spelling, within)
        values = read_config_json(given, self.classes, ignore, self.others)
        config = self._settled(values, overrides)
        _require_one_device(source, overrides, config)
        if config.sliding_window_size > 0:
            note(
                f"answers may differ from transformers' once a text is longer than the sliding window of "
                f"{config.sliding_window_size} tokens, as the cache keeps {config.attention_sink_size} first tokens and "
                "drops others only between steps"
            )
        return config

    def restore(self, model_config: Mapping[str, Json], overrides: Overrides) -> ModelConfig:
        """From a `model_config` that `ModelConfig.to_json` or MLC wrote.  Raises InputError."""
        values = ConfigValues(self.model_type, flattened(model_config), spelling=self.spelling).in_common_names()
        config = self._settled(values, overrides)
        _require_one_device(values.values, overrides, config)
        return config

    def _settled(self, values: ConfigValues, overrides: Overrides) -> ModelConfig:
        """As in MLC, an override replaces the field and every derived field is checked again."""
        notes: list[str] = []
        config = read_rows(replace(values, note=notes.append), self.rows)
        changes: dict[str, Json] = {}
        known = config.values()
        for item in fields(overrides):
            value = getattr(overrides, item.name)
            if value is None or value == getattr(config, item.name):
                continue
            if item.name not in config.fields:
                key = item.name.replace("_", "-")
                raise InputError(
                    f"a {self.model_type} model has no {key}", where=Where("overrides", key=key), fix="remove the key"
                )
            changes[item.name] = value
        changes = {**window_changes(config, values, overrides), **changes}
        if changes:
            return read_rows(values.but(known | changes), self.rows)
        for text in notes:
            values.note(text)
        return config

    def parameters(self, config: ModelConfig) -> tuple[Parameter, ...]:
        """Every parameter, in the order of the module's own declaration."""
        return parameters(self.decoder(config))

    def unused(self, name: str) -> bool:
        """Whether a tensor of this name is known and rightly ignored, where no parameter is made of it.

        A tied model's stored head is equal to its embedding, else the model is not tied.
        """
        return name == self.head or name.endswith((*self.ignored, *self.masks))


def _require_one_device(source: Mapping[str, Json], overrides: Overrides, config: ModelConfig) -> None:
    """Raise InputError for a configuration that splits the model: one library computes on one device."""
    for name in ("tensor_parallel_shards", "pipeline_parallel_stages"):
        # Not every family has a field for both.
        stored = source.get(name) if getattr(overrides, name) is None else None
        count = stored if isinstance(stored, int) and stored > 1 else getattr(config, name)
        if count != 1:
            key = name.replace("_", "-")
            raise InputError(
                f"is {count}, and a library computes on one device",
                where=Where("config.json" if stored == count else "overrides", key=name if stored == count else key),
                why="splitting a model between several devices is not built yet",
                fix=f"set {key} = 1 in the model's metadata",
            )
