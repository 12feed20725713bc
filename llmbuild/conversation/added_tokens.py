"""The tokens that a tokenizer's files add to its vocabulary, or find in text before anything else, in transformers' order.

They are named in tokenizer_config.json.  Where that has no `added_tokens_decoder`, special_tokens_map.json and
added_tokens.json count too, which older versions wrote.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmbuild.conversation.special_tokens import SPECIAL_NAMES
from llmbuild.errors import InputError, Where

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"

_EXTRA = "extra_special_tokens"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token with the properties that `tokenizers` gives it; `id` is what the files say, or None where they say none.

    A `normalized` token is found after normalization; None is so for what is not special.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    special: bool = False
    id: int | None = None

    @property
    def plain(self) -> bool:
        """Whether it is found wherever it is spelled, and takes nothing around it."""
        return not (self.single_word or self.lstrip or self.rstrip)


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """`tokens` in the order in which they are added, and the text of each role (absent for a role that nothing has)."""

    tokens: list[AddedToken]
    roles: Mapping[str, str]


def read_added_tokens(
    config: Mapping[str, Any],
    special_map: Mapping[str, Any],
    added: Mapping[str, Any],
    *,
    defaults: Mapping[str, str | None],
    extra: Sequence[AddedToken] = (),
    appended: Sequence[str] = (),
) -> AddedTokens:
    """What the three files say together; `defaults` are the class's roles, `extra` the special tokens where no file lists
    any, `appended` such that the class always adds.  Raises InputError."""
    values: dict[str, Any] = dict(config)
    file = CONFIG
    if "additional_special_tokens" in values and not values.get(_EXTRA):
        values[_EXTRA] = values.pop("additional_special_tokens")
    if "added_tokens_decoder" in config:
        numbered = _numbered(config["added_tokens_decoder"])
    else:
        for key, value in special_map.items():
            values[key] = {**value, "special": True} if isinstance(value, dict) and "content" in value else value
            file = MAP
        numbered = _of_older_file(
            added, {*map(_content, _listed(values, file)), *map(_content, map(values.get, SPECIAL_NAMES))}
        )
    roles, named = _roles(values, defaults, {token.content: token for token in numbered.values()}, file)
    listed = list(extra) if _EXTRA not in values else _tokens(_listed(values, file), Where(file, key=_EXTRA))
    texts = set(roles.values())
    tokens: dict[str, AddedToken] = {}
    for token in (*(numbered[number] for number in sorted(numbered)), *named, *map(_special, appended), *listed):
        if token.content not in tokens:
            tokens[token.content] = replace(token, special=True) if token.content in texts else token
    return AddedTokens(list(tokens.values()), roles)


def _numbered(decoder: Any) -> dict[int, AddedToken]:
    """The tokens of `added_tokens_decoder` by number."""
    if not isinstance(decoder, dict):
        raise InputError("must be an object", where=Where(CONFIG, key="added_tokens_decoder"))
    found: dict[int, AddedToken] = {}
    for key, value in decoder.items():
        where = Where(CONFIG, key=f"added_tokens_decoder.{key[:20]}")
        if not key.isascii() or not key.isdecimal() or len(key) > 9:
            raise InputError("is not a token's number", where=where)
        token = _token(value, where) if isinstance(value, dict) else None
        if token is None:
            raise InputError("is not a token with its properties", where=where)
        found[int(key)] = replace(token, id=int(key))
    return found


def _of_older_file(added: Mapping[str, Any], special: set[str | None]) -> dict[int, AddedToken]:
    """The tokens of added_tokens.json by number; it has no properties of them."""
    found: dict[int, AddedToken] = {}
    for content, number in added.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
            raise InputError(
                f"must be a token's number, not {reprlib.repr(number)}", where=Where(ADDED, key=content[:60])
            )
        found[number] = AddedToken(content, special=content in special, id=number)
    return found


def _roles(
    values: Mapping[str, Any], defaults: Mapping[str, str | None], known: Mapping[str, AddedToken], file: str
) -> tuple[dict[str, str], list[AddedToken]]:
    """The text of each role, and the tokens of roles in order: first those that every tokenizer has, then the model's own."""
    roles: dict[str, str] = {}
    named: list[AddedToken] = []
    own = (name for name in values if name.endswith("_token") and name not in SPECIAL_NAMES)
    for name in (*SPECIAL_NAMES, *own):
        token = _token(values[name] if name in values else defaults.get(name), Where(file, key=name), special=True)
        if token is not None:
            roles[name] = token.content
            named.append(known.get(token.content, token) if name in SPECIAL_NAMES else token)
    if isinstance(extras := values.get(_EXTRA), dict):
        named += _tokens(list(extras.values()), Where(file, key=_EXTRA))
    return roles, named


def _tokens(values: Sequence[Any], where: Where) -> list[AddedToken]:
    found = (_token(value, where, special=True) for value in values)
    return [token for token in found if token is not None]


def _special(content: str) -> AddedToken:
    return AddedToken(content, special=True)


def _listed(values: Mapping[str, Any], file: str) -> list[Any]:
    listed = values.get(_EXTRA)
    if listed is None or isinstance(listed, dict):
        return []
    if not isinstance(listed, list):
        raise InputError("must be a list of tokens", where=Where(file, key=_EXTRA))
    return listed


def _content(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _token(value: Any, where: Where, *, special: bool = False) -> AddedToken | None:
    """A token written as its text or as an object; None for null and for what names no token (a flag, a number)."""
    if isinstance(value, str):
        return _special(value) if value else None
    if not isinstance(value, dict):
        return None
    content = value.get("content")
    if not isinstance(content, str) or not content:
        raise InputError("a token has no content", where=where)
    flags = {name: value[name] for name in _FLAGS if name in value}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise InputError(f"'{name}' of a token must be true or false", where=where)
    of_role = {"special": True} if special else {}
    return AddedToken(content, **{**flags, **of_role})
