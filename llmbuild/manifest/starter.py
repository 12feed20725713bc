"""A starter manifest for a checkpoint: the output of `llmbuild init`, and how its proposals are derived.

A checkpoint on this machine decides by its content (its configuration, the chat template of its tokenizer).  Of any other only
the name is known; its proposals state that.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.conversation.templates import CHECKPOINT, CHECKPOINT_ANYWAY
from llmbuild.errors import InputError, UsageError, did_you_mean
from llmbuild.manifest.source import forms, parse_source, shown_source
from llmbuild.manifest.typed import as_source, checkpoint_in
from llmbuild.sources.advice import fitting
from llmbuild.sources.kind import Source, SourceError
from llmbuild.sources.kinds import source_kind
from llmbuild.targets.names import host_target, target_names
from llmbuild.tomlfile import dotted

if TYPE_CHECKING:
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.models.open import CheckpointMetadata

BASE_TEMPLATE = "LM"
SCHEME = "q4f32_1"
"""The quantization that is proposed for weights that are not packed as `PACKED` takes them over."""
PACKED = "q4f16_awq"
MAX_WINDOW = 8192
"""The largest window that is proposed: a larger one costs memory that not every machine has."""


# What a name implies where a checkpoint has no chat template.  The first match wins.
NAMES = (
    (r"redpajama.*chat", "redpajama_chat"),
    (r"code-?llama.*instruct", "codellama_instruct"),
    (r"code-?llama", "codellama_completion"),
    (r"tiny-?llama.*chat", "tinyllama_v1_0"),
    (r"llama-?3[._][1-9].*instruct", "llama-3_1"),
    (r"llama-?3.*instruct", "llama-3"),
    (r"llama-?2.*chat", "llama-2"),
    (r"mi[sx]tral.*instruct", "mistral_default"),
    (r"qwen-?3(?!.*base)", "qwen3"),
    (r"qwen.*(instruct|chat)", "qwen2"),
    (r"smollm.*instruct", "chatml"),
    (r"phi-?3.*instruct", "phi-3"),
    (r"phi-?4-mini.*instruct", "phi-4"),
    (r"phi-?2", "phi-2"),
    (r"gemma-?3.*-it", "gemma3_instruction"),
    (r"gemma.*-it", "gemma_instruction"),
    (r"ministral-3-.*reasoning", "ministral3_reasoning"),
    (r"ministral-3-.*instruct", "ministral3"),
    (r"stablelm-?2.*(zephyr|chat)", "stablelm-2"),
    (r"stablelm.*zephyr", "stablelm-3b"),
    (r"stablelm.*tuned", "stablelm"),
    (r"olmo-?2.*instruct", "olmo2"),
    (r"olmo(?!-?3).*instruct", "olmo"),
    (r"aya-23", "aya-23"),
    (r"nemotron-mini.*instruct", "nemotron"),
    (r"orion.*chat", "orion"),
    (r"chatglm[23]", "glm"),
    (r"internlm-?2.*chat", "chatml"),
)


@dataclass(frozen=True, slots=True)
class Starter:
    """The values of a manifest for one model.  `because` and `window_note` are comments that explain a proposal; `awq` is true
    where AWQ has packed the weights."""

    name: str
    source: str
    preset: bool
    template: str
    because: str
    revision: str | None = None
    sha256: str | None = None
    model_type: str | None = None
    window: int | None = None
    window_note: str | None = None
    awq: bool = False


def propose(
    checkpoint: str,
    directory: Path,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    own: Callable[[], Iterable[DecoderFamily]] = tuple,
) -> Starter:
    """Proposals for the user's argument: a directory, a .gguf file, hf:, https:, pypi:, a preset, or what stands for one of
    these (see typed.py).

    `directory` is where the manifest will be, and `own` loads the families that are the project's own.  Raises UsageError when it
    is none of these, and InputError when a local checkpoint cannot be read, is not whole, or has an architecture or quantized
    weights that are not supported.
    """
    here = _existing(checkpoint)
    if here is None:
        checkpoint = as_source(checkpoint, sha256=sha256)
    elif checkpoint.rstrip("/") == ".":
        found = checkpoint_in(here)
        checkpoint, here = (checkpoint if found == here else str(found)), found
    if here is not None:
        if revision is not None or sha256 is not None:
            raise UsageError("--revision and --sha256 are for sources that are fetched", where=checkpoint)
        try:
            return _of_files(checkpoint, here, directory, own)
        except InputError as error:
            error.fix = fitting(error.fix, remote=False)
            raise
    try:
        source = parse_source(checkpoint, revision, sha256)
    except SourceError as error:
        fix = "add --sha256 with the SHA-256 of the file" if "sha256" in error.what else error.fix
        raise UsageError(error.what, where=shown_source(checkpoint), fix=fix) from None
    if not source_kind(source.kind).remote:
        return _of_preset(checkpoint)
    return _of_remote(checkpoint, source, revision, sha256)


def _existing(text: str) -> Path | None:
    """The path that a text names, if it exists; a URL may be longer than any path."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _of_files(checkpoint: str, path: Path, directory: Path, own: Callable[[], Iterable[DecoderFamily]]) -> Starter:
    from llmbuild.checkpoints.packed.quantization import read_quantization_files
    from llmbuild.models.open import read_metadata
    from llmbuild.models.own import recognised
    from llmbuild.models.registry import infer_model_type
    from llmbuild.quantization.scheme import SCHEMES
    from llmbuild.tasks.refusal import placed, refusal

    if path.name == "config.json":
        path = path.parent
    metadata = read_metadata(path)
    packed = read_quantization_files(path)
    params = {"model-type": None, "ignore-keys": (), "scheme": SCHEMES[SCHEME].to_json()}
    family = recognised([] if path.is_file() else list(own()), metadata.config)
    refused = refusal("quantize", params, metadata.config, packed, own=lambda: family)
    if refused is not None:
        raise placed(refused, lambda name: str(path) if path.is_file() else str(path / name))
    if path.is_dir():
        _require_whole(path)
    model_type = infer_model_type(metadata.config) if family is None else family.model_type
    template, because = _template(metadata, path)
    window, window_note = _window(metadata.config, family)
    return Starter(
        name=_name(path.absolute().stem if path.is_file() else path.absolute().name),
        source=_written(checkpoint, path, directory),
        preset=False,
        template=template,
        because=because,
        model_type=model_type,
        window=window,
        window_note=window_note,
        awq=family is None
        and refusal("quantize", params | {"scheme": SCHEMES[PACKED].to_json()}, metadata.config, packed) is None,
    )


def _require_whole(path: Path) -> None:
    """Raise InputError where a directory lacks weights, or has git-lfs pointers in the place of files."""
    from llmbuild.checkpoints.files import read_bounded
    from llmbuild.checkpoints.huggingface import file_names
    from llmbuild.sources.local import refuse_pointers
    from llmbuild.sources.select import needed_files, require_weights
    from llmbuild.tasks.refusal import placed

    needed = needed_files(file_names(path), None, str(path), lambda name: read_bounded(path / name, "the weight index"))
    try:
        require_weights(needed, None)
        refuse_pointers(path, needed)
    except InputError as error:
        raise placed(error, lambda name: str(path / name)) from None


def _written(checkpoint: str, path: Path, directory: Path) -> str:
    """The path as the manifest has it: relative to the manifest where the user's was relative, or where it is below it."""
    target = path.absolute()
    if target.is_relative_to(directory) or not Path(checkpoint).expanduser().is_absolute():
        return Path(os.path.relpath(target, directory)).as_posix()
    return target.as_posix()


def _of_preset(name: str) -> Starter:
    from llmbuild.models.presets import preset, presets

    try:
        config = preset(name)
    except InputError:
        inside = [known for known in presets() if name.lower() in known.lower()] if len(name) > 2 else []
        near = did_you_mean(name, presets()) or (f"presets with this word: {', '.join(inside)}" if inside else None)
        raise UsageError(
            "there is no such file, directory or preset",
            where=name,
            why=near,
            fix=f"give {forms()}, or a preset, which docs/models.md lists",
        ) from None
    window, window_note = _window(config)
    return Starter(
        name=_name(name),
        source=name,
        preset=True,
        template=BASE_TEMPLATE,
        because="A preset has no tokenizer and no weights; only its library is built.",
        window=window,
        window_note=window_note,
    )


def _of_remote(checkpoint: str, source: Source, revision: str | None, sha256: str | None) -> Starter:
    spec, named = source.spec, shown_source(checkpoint)
    last = Path(spec.get("path") or spec.get("repo") or named).name
    last = re.sub(r"\.(gguf|zip|tar|tar\.gz|tgz)$", "", last, flags=re.IGNORECASE)
    return Starter(
        name=_name(last),
        source=checkpoint,
        preset=False,
        template=CHECKPOINT,
        because=f'The checkpoint\'s own chat template; "{BASE_TEMPLATE}" is for a base model, which has none.',
        revision=revision,
        sha256=sha256,
        awq=re.search(r"\bawq\b", last, re.IGNORECASE) is not None,
    )


def _name(text: str) -> str:
    """A good name for a model out of a file's or repository's name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+") or "model"


def _template(metadata: CheckpointMetadata, path: Path) -> tuple[str, str]:
    """The conversation template to propose for a checkpoint on this machine, and why."""
    from llmbuild.conversation.chat_template import read_chat_template
    from llmbuild.conversation.own_template import derive_template
    from llmbuild.conversation.probes import Encoder

    try:
        found = read_chat_template(path, metadata.tokenizer_file("tokenizer_config.json"))
        if found is None:
            by_name = _template_by_name(path.absolute().name)
            if by_name is not None:
                return by_name, "Taken from the checkpoint's name: its files do not tell."
            return BASE_TEMPLATE, "The checkpoint has no chat template, so it is taken for a base model."
        tokenizer = metadata.tokenizer_file("tokenizer.json")
        derived = None if tokenizer is None else derive_template(found, Encoder(tokenizer), anyway=True)
    except InputError as error:
        why = " ".join(f"{error.what}: {error.why}".split())
        return BASE_TEMPLATE, f"Choose the one that the model was tuned with; {why}."
    if derived is not None and derived.wrong:
        return (
            CHECKPOINT_ANYWAY,
            f"MLC's fields cannot express all of the checkpoint's chat template: {derived.wrong[0].sentence}.",
        )
    return CHECKPOINT, "The checkpoint's own chat template."


def _template_by_name(name: str) -> str | None:
    return next((template for pattern, template in NAMES if re.search(pattern, name, re.IGNORECASE)), None)


def _window(config: Mapping[str, Any], own: DecoderFamily | None = None) -> tuple[int | None, str | None]:
    """The context window to propose, and a comment where it is not the checkpoint's own."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type

    model = (own or family(infer_model_type(config))).configure(config, Overrides())
    said = model.context_window_size
    rope = getattr(model, "rope_scaling", None)
    if isinstance(rope, Mapping) and rope.get("rope_type") == "longrope":
        short = rope.get("original_max_position_embeddings")
        if isinstance(short, int) and short <= MAX_WINDOW and short < said:
            why = "with a larger window its RoPE is that of long texts, for short ones too"
            return short, f"The checkpoint allows up to {said}; {why}."
    if said <= MAX_WINDOW:
        # A rolling cache has no such window.
        return None if said < 1 else said, None
    return MAX_WINDOW, f"The checkpoint allows up to {said}; a larger window needs more memory."


def render(starter: Starter, project: str, directive: str = "") -> str:
    """The text of the manifest.  `directive` is a first line that names its schema to editors."""
    key = dotted(("models", starter.name))
    source = "preset" if starter.preset else "source"
    lines = [
        *([directive] if directive else []),
        "# Written by `llmbuild init`. Every key is explained in docs/manifest.md.",
        "",
        "[project]",
        f"name = {_string(_name(project))}",
        "",
        f"[{key}]",
        f"{source} = {_string(starter.source)}",
    ]
    lines += [f"revision = {_string(starter.revision)}"] if starter.revision else []
    lines += [f"sha256 = {_string(starter.sha256)}"] if starter.sha256 else []
    if starter.model_type:
        lines.append(f"model-type = {_string(starter.model_type)}")
    lines += [f"# {starter.because}", f"conv-template = {_string(starter.template)}"]
    if starter.window_note:
        lines.append(f"# {starter.window_note}")
    if starter.window is not None:
        lines.append(f"metadata = {{ context-window-size = {starter.window} }}")
    else:
        lines.append("# metadata = { context-window-size = 4096 }    # default: what the checkpoint says")
    if not starter.preset:
        lines.append("# generation = { temperature = 0.7, top-p = 0.95 }    # default: what the checkpoint says")
    lines += [
        "",
        "# The matrix: every model with every quantization on every platform.",
        "[[build]]",
        f"models = [{_string(starter.name)}]",
        *_quantizations(starter),
        '# `llmbuild targets` lists what there is: "web" is browsers, "iphone" and "android" phones, "cuda" NVIDIA\'s GPUs.',
        f"platforms = [{_string(_platform())}]",
    ]
    return "\n".join(lines) + "\n"


def _platform() -> str:
    """This machine's CPU, so that what is built can be talked to right away."""
    return host_target() if host_target() in target_names() else "x86_64-linux-cpu"


def _quantizations(starter: Starter) -> list[str]:
    if starter.awq:
        return [
            "# The weights come packed by AWQ, and this scheme takes them over as they are.",
            f'quantizations = ["{PACKED}"]',
        ]
    return [
        "# q4f32_1: 4-bit weights computed in float32, good on CPUs. On GPUs q4f16_1 is usual; q0f16 does not quantize.",
        f'quantizations = ["{SCHEME}"]',
    ]


def _string(text: str) -> str:
    """A TOML basic string; JSON's escapes are all valid in TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
