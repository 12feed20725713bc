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


class Fallback:
    """A tokenizer whose tokens are single bytes, which are replaced one by one where a run of them is no text."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        runs: list[bytearray] = [bytearray()]
        text = ""
        for token in [*tokens, -1]:
            if 0 <= token < 256:
                runs[-1].append(token)
                continue
            try:
                text += runs[-1].decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(runs[-1])
            text += "" if token == -1 else chr(token - 256)
            runs.append(bytearray())
        return text


def test_text_goes_on_after_bytes_that_are_no_character() -> None:
    """The two characters that were shown become replacement characters with the byte after them."""
    stream = TextStream(Fallback())
    pieces = [stream.put(token) for token in [*"né".encode(), 0xC3, 256 + ord("h"), 256 + ord("i")]]
    pieces.append(stream.finish())
    assert pieces == ["n", "", "é", "", "\ufffd\ufffdh", "i", ""]
    assert stream.text == "".join(pieces)


def test_a_stop_string_may_begin_before_an_unfinished_character() -> None:
    pieces, stream = feed("a<é> b", ("<é>",))
    assert "".join(pieces) == "a"
    assert stream.stopped


def test_the_first_of_several_stop_strings_ends_the_text() -> None:
    class Whole:
        def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
            return "one two three"

    stream = TextStream(Whole(), ["three", "two th", "o thr"])
    assert stream.put(0) == "one "
