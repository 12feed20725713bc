"""Streaming text: whole characters only, and never a part of a stop string."""

from __future__ import annotations

from llmbuild.runtime.stream import TextStream


class Bytes:
    """A tokenizer whose tokens are single bytes."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


def feed(text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(Bytes(), stops)
    pieces = []
    for byte in text.encode():
        pieces.append(stream.put(byte))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    return pieces, stream


def test_a_character_appears_when_its_last_byte_came() -> None:
    pieces, stream = feed("é!")
    assert pieces == ["", "é", "!", ""]
    assert stream.text == "é!"


def test_a_stop_string_ends_the_text_and_is_not_shown() -> None:
    pieces, stream = feed("hi<human> more", ("<human>",))
    assert "".join(pieces) == "hi"
    assert stream.stopped


def test_what_only_looks_like_a_stop_string_is_shown_late() -> None:
    pieces, stream = feed("a<hug>", ("<human>",))
    assert pieces[:3] == ["a", "", ""]
    assert stream.text == "a<hug>"
    assert not stream.stopped


def test_a_held_back_tail_comes_with_the_end() -> None:
    pieces, stream = feed("x<hum", ("<human>",))
    assert pieces[-1] == "<hum"
    assert stream.text == "x<hum"
