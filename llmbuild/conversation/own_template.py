"""The conversation template of a model with a checkpoint: derived from its chat template, or held against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import TOKENIZER_JSON
from llmbuild.conversation.chat_template import ChatTemplate, no_chat_template, read_chat_template
from llmbuild.conversation.derive import DERIVING_CHATS, derive
from llmbuild.conversation.jinja import JinjaError, Rendered, render_chats
from llmbuild.conversation.probes import PROBES, Difference, Encoder, Probe, differences, text_of
from llmbuild.conversation.templates import (
    CHECKPOINT,
    CHECKPOINT_ANYWAY,
    PLACEHOLDERS,
    TEMPLATE_NAMES,
    resolve_template,
)
from llmbuild.conversation.tokenizer_info import tokens_of_other_files
from llmbuild.errors import InputError
from llmbuild.printable import several

_LONGEST_SHOWN = 600
_FEWEST, _MOST_LETTERS = 8, 2_000_000
"""How many proposals are tried in any case, and how many letters in all: published templates write some thousands."""
_COMPARED = 200
"""Letters at the end of a prompt in which it is compared with others: a chat template may put pages before them."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A template in MLC's fields with what it gets wrong, why the chat template refuses system messages, or None, and
    the tokens in it that tokenizer.json lacks."""

    fields: Mapping[str, Json]
    wrong: tuple[Difference, ...]
    no_system: str | None
    lacking: tuple[str, ...] = ()


def settle_template(
    conversation: str | Mapping[str, Json],
    system_prompt: str | None,
    directory: Path,
    files: Mapping[str, bytes],
    note: Callable[[str], None],
) -> Mapping[str, Json]:
    """`conv_template` of mlc-chat-config.json.

    `conversation` is `CHECKPOINT`, `CHECKPOINT_ANYWAY`, or a resolved template, which is then held against the checkpoint's
    own: a difference is a note.  `files` are the tokenizer's files by name.  Raises InputError when the chat template is missing
    or not valid, when the derived template is not right (unless that was accepted), or takes no system prompt.
    """
    if not isinstance(conversation, str):
        _compare(conversation, directory, files, note)
        return with_system_prompt(conversation, system_prompt)
    found = read_chat_template(directory, files.get("tokenizer_config.json"))
    if found is None:
        raise no_chat_template(str(directory))
    derived = derive_template(found, _encoder(files), anyway=conversation == CHECKPOINT_ANYWAY)
    if derived.wrong:
        count = f"{len(derived.wrong)} of {len(PROBES)} conversations"
        note(f"the derived conversation template differs in {count}: {derived.wrong[0].sentence}")
    if derived.lacking:
        note(_note_of(_lacks(derived.lacking)))
    if derived.no_system is not None:
        if system_prompt:
            raise InputError(
                "the checkpoint's chat template takes no system message",
                where=found.where,
                why=derived.no_system or None,
                fix="remove system-prompt",
            )
        note(f"the checkpoint's chat template takes no system message: {derived.no_system}".removesuffix(": "))
    return with_system_prompt(derived.fields, system_prompt)


def with_system_prompt(template: Mapping[str, Json], system_prompt: str | None) -> Mapping[str, Json]:
    """A template with another system message."""
    return template if system_prompt is None else {**template, "system_message": system_prompt}


def derive_template(found: ChatTemplate, encoder: Encoder, *, anyway: bool = False) -> Derived:
    """The template with the fewest wrong probes.  Raises InputError when there is none, or it has any and not `anyway`."""
    try:
        answers = render_chats(found.text, found.tokens, [*DERIVING_CHATS, *(probe.chat for probe in PROBES)])
    except JinjaError as error:
        raise InputError(
            "the checkpoint's chat template cannot be used",
            where=found.where,
            why=str(error),
            fix="set conv-template to the registered template that the checkpoint was tuned with, or to a file of your own",
        ) from error
    rendered = dict(zip(PROBES, answers[len(DERIVING_CHATS) :], strict=True))
    lacking = encoder.lacking(answer.text or "" for answer in answers)
    if lacking and not anyway:
        raise _lacks(lacking)
    refused = {probe: answer.refusal for probe, answer in rendered.items() if answer.text is None}
    best: tuple[Mapping[str, Json], list[Difference]] | None = None
    letters = sum(len(answer.text or "") for answer in answers)
    proposals = derive(answers[: len(DERIVING_CHATS)], encoder.added, found.tokens.get("bos_token"))
    for fields in islice(proposals, _FEWEST + _MOST_LETTERS // max(letters, 1)):
        wrong = list(differences(fields, rendered, encoder))
        if best is None or len(wrong) < len(best[1]):
            best = fields, wrong
        if not wrong:
            break
    problem = next(
        (f"with {probe.name}, it refuses: {why}" for probe, why in refused.items() if not probe.has_system), None
    )
    if best is None:
        problem = problem or "it does not write each message once and in order"
    elif problem is None and best[1]:
        problem = f"{best[1][0].sentence} ({len(best[1])} of {len(rendered)} conversations differ)"
    if best is None or (problem is not None and not anyway):
        raise _not_expressible(found, problem, rendered, encoder, derived=best is not None)
    fields, wrong = best
    lost = PLACEHOLDERS["system"] not in str(fields["system_template"])
    no_system = next((why for probe, why in refused.items() if probe.has_system), "it leaves it out" if lost else None)
    return Derived(fields, tuple(wrong), no_system, tuple(lacking))


def _not_expressible(
    found: ChatTemplate,
    problem: str | None,
    rendered: Mapping[Probe, Rendered],
    encoder: Encoder,
    *,
    derived: bool,
) -> InputError:
    ways = []
    if derived:
        ways.append(f'accept the difference with conv-template = "{CHECKPOINT_ANYWAY}"')
    if any(answer.text is not None for answer in rendered.values()):
        name, wrong = _nearest(rendered, encoder)
        if wrong < len(rendered):
            ways.append(f"name the nearest registered template, '{name}' ({wrong} of {len(rendered)} differ)")
    ways.append("set conv-template to a file of your own")
    if problem is not None and "strftime_now" in problem:
        problem += "; a template that writes today's date has another result each day"
    return InputError(
        "MLC's fields cannot express the checkpoint's chat template",
        where=found.where,
        why=problem,
        fix=", or ".join(ways),
    )


def _lacks(tokens: Sequence[str]) -> InputError:
    names, them = several([f"'{token[:40]}'" for token in tokens]), "it" if len(tokens) == 1 else "them"
    return InputError(
        f"lacks {names}, which the checkpoint's chat template writes",
        where=TOKENIZER_JSON,
        why=f"other files of the tokenizer add {them}, and without {them} a runtime cuts the text into other tokens",
        fix="load the tokenizer with transformers, save it, and put that tokenizer.json beside config.json",
    )


def _note_of(error: InputError) -> str:
    return f"{error.where} {error.what}: {error.why}"


def _nearest(rendered: Mapping[Probe, Rendered], encoder: Encoder) -> tuple[str, int]:
    """The registered template with the fewest wrong probes, and their number; among equals the one with the likest texts."""

    def rank(name: str) -> tuple[int, float]:
        template = resolve_template(name, Path())
        wrong = len(list(differences(template, rendered, encoder)))
        likeness = sum(
            SequenceMatcher(None, answer.text[-_COMPARED:], text_of(template, probe, encoder)[-_COMPARED:]).ratio()
            for probe, answer in rendered.items()
            if answer.text is not None
        )
        return wrong, -likeness

    ranks = {name: rank(name) for name in TEMPLATE_NAMES}
    nearest = min(ranks, key=ranks.__getitem__)
    return nearest, ranks[nearest][0]


def _compare(
    template: Mapping[str, Json], directory: Path, files: Mapping[str, bytes], note: Callable[[str], None]
) -> None:
    """Note the first probe that a template of the user's choice renders otherwise than the checkpoint's chat template."""
    if "tokenizer.json" not in files:
        return
    name = template["name"]
    try:
        found = read_chat_template(directory, files.get("tokenizer_config.json"))
        if found is None:
            return
        answers = render_chats(found.text, found.tokens, [probe.chat for probe in PROBES])
        encoder = _encoder(files)
        lacking = encoder.lacking(answer.text or "" for answer in answers)
        wrong = next(differences(template, dict(zip(PROBES, answers, strict=True)), encoder), None)
    except (InputError, JinjaError) as error:
        why = error.why or error.what if isinstance(error, InputError) else str(error)
        note(f"conv-template '{name}' cannot be held against the checkpoint's chat template: {why}")
        return
    if lacking:
        note(_note_of(_lacks(lacking)))
    if wrong is not None:
        note(
            f"conv-template '{name}' is not the checkpoint's chat template: with {wrong.probe} the checkpoint writes "
            f"{_shown(wrong.own)} and '{name}' {_shown(wrong.other)}; conv-template = \"{CHECKPOINT}\" takes the checkpoint's"
            + (f" ({wrong.words})" if wrong.own == wrong.other else "")
        )


def _shown(text: str) -> str:
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return json.dumps(cut, ensure_ascii=False)


def _encoder(files: Mapping[str, bytes]) -> Encoder:
    content = files.get("tokenizer.json")
    if content is None:
        raise InputError(
            "a conversation template is derived with the checkpoint's tokenizer.json, and there is none",
            fix="save it beside config.json, or name a registered template",
        )
    return Encoder(content, tokens_of_other_files(files))
