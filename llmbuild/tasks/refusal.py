"""What a task would refuse of a checkpoint, by the files that describe it alone: no weights are needed for the answer.

A plan asks before weights are fetched, and `llmbuild init` before it writes a manifest.  What only tensors decide is left to
the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.names import GENERATION_CONFIG, TOKENIZER_JSON
from llmbuild.errors import LlmbuildError, MultiError

if TYPE_CHECKING:
    from llmbuild.checkpoints.packed.stated import Quantization
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.quantization.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Said:
    """What a checkpoint says beside its description, as far as it is known before a fetch.

    `names` are those of its files (none where they say nothing: a GGUF file holds its tokenizer), `settings` is the content of
    tokenizer_config.json ({} where there is none, None where it is not known), `generation` that of generation_config.json, and
    `tokenizer` a tokenizer.json that was made.
    """

    names: Collection[str] = ()
    settings: Mapping[str, Any] | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: bytes | None = None


NOTHING_SAID = Said()


def refusal(
    kind: str,
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]],
    said: Said = NOTHING_SAID,
    own: Callable[[], DecoderFamily | None] = lambda: None,
    scheme: Scheme | None = None,
) -> LlmbuildError | None:
    """The error with which a config or a quantize task with these parameters would refuse a checkpoint, None where it would
    not by `config`, the content of config.json, and `files`, the contents of QUANTIZATION_FILES that the checkpoint has.

    `said` is what else a config task reads, as far as it is known, and `own` loads the project's own family of the model.
    `scheme` is that of the config task, whose overrides must be meant for parameters of the model.
    """
    from llmbuild.checkpoints.files import parse_json
    from llmbuild.checkpoints.packed.quantization import check_quantization
    from llmbuild.checkpoints.weight_files import NAMES, refuse_named_weights
    from llmbuild.conversation.chat_template import check_chat_template
    from llmbuild.conversation.make_tokenizer import check_tokenizer
    from llmbuild.conversation.numbers import check_named, check_pieces
    from llmbuild.conversation.vocabulary import read_vocabulary
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type
    from llmbuild.models.wrappers import text_config
    from llmbuild.quantization.overrides import check_overrides
    from llmbuild.tasks.config import overrides
    from llmbuild.tasks.generation import choose

    ignore = params["ignore-keys"]
    try:
        config = text_config(config)
        architecture = own() or family(params["model-type"] or infer_model_type(config))
        if kind == "config":
            model = architecture.configure(config, overrides(params["metadata"]), ignore=ignore)
            heard = {key: value for key, value in config.items() if key not in ignore}
            if scheme is not None and scheme.overrides:
                check_overrides(scheme.name, scheme.overrides, architecture.parameters(model))
            choose((said.generation, GENERATION_CONFIG, None), (heard, "config.json", None))
            if params["preset"] is None:
                conversation = params["conversation"]
                named = conversation if isinstance(conversation, Mapping) else None
                check_named(model.vocab_size, named, [(GENERATION_CONFIG, said.generation), ("config.json", heard)])
                if said.tokenizer is not None:
                    check_pieces(model.vocab_size, read_vocabulary(parse_json(said.tokenizer, TOKENIZER_JSON)))
                if said.settings is not None and named is None:
                    check_chat_template(said.names, said.settings)
            if said.settings is not None and said.names:
                check_tokenizer(said.names, said.settings, config)
        else:
            refuse_named_weights(config, NAMES)
            quantization = check_quantization(config, files, ignore=ignore)
            architecture.configure(config, Overrides(), ignore=ignore)
            _require_fitting(params["scheme"], quantization)
    except LlmbuildError as error:
        return error
    return None


def _require_fitting(scheme_json: Mapping[str, Any], quantization: Quantization | None) -> None:
    """Raise InputError where a scheme takes weights that come packed, and the configuration describes others."""
    from llmbuild.quantization.awq import require_described
    from llmbuild.quantization.scheme import Scheme

    scheme = Scheme.from_json(scheme_json)
    if scheme.comes_packed:
        require_described(quantization, scheme)


def placed(error: LlmbuildError, written: Callable[[str], str]) -> LlmbuildError:
    """The same error with the user's name of the file that is at fault, which `written` gives for its name in the checkpoint."""
    from llmbuild.conversation.numbers import TOKEN_KEYS
    from llmbuild.models.own import DIRECTORY

    for one in error.errors if isinstance(error, MultiError) else (error,):
        name, _, key = ("config.json" if one.where is None else one.where).partition(": ")
        if name.startswith(f"{DIRECTORY}/"):
            # It is in the project's own architecture.
            continue
        one.what = one.what.removeprefix(f"{name} ")
        place = written(name)
        one.where = f"{place}: {key}" if key else place
        if place.endswith(".gguf") and key in TOKEN_KEYS:
            # The reader of the file's tokenizer needs the number too, and leaves out no key.
            one.fix = "use another GGUF file or the original checkpoint of the model"
    return MultiError(error.errors) if isinstance(error, MultiError) else error
