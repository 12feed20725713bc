"""Reading tokenizer.model without the library, against the library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuild.checkpoints.piece_types import PieceType
from llmbuild.conversation.sentencepiece_model import read_sentencepiece
from llmbuild.errors import InputError, LlmbuildError
from tests.helpers.tokenizer_files import message, sentencepiece_model


def test_the_pieces_are_the_librarys() -> None:
    import sentencepiece

    data = sentencepiece_model(user_defined_symbols=["foo"], control_symbols=["[INST]"])
    model = read_sentencepiece(data)
    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    numbers = range(library.get_piece_size())
    assert model.texts == [library.id_to_piece(number) for number in numbers]
    assert list(model.scores) == [library.get_score(number) for number in numbers]
    for kind, test in {
        PieceType.UNKNOWN: library.is_unknown,
        PieceType.CONTROL: library.is_control,
        PieceType.BYTE: library.is_byte,
        PieceType.UNUSED: library.is_unused,
    }.items():
        assert [of == kind for of in model.types] == [test(number) for number in numbers]
    assert model.types[library.piece_to_id("foo")] == PieceType.USER_DEFINED
    assert (model.bos_id, model.eos_id) == (library.bos_id(), library.eos_id())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it has no pieces"),
        (b"\x0a\x00" * 1_000_001, "it has more than 1000000 pieces"),
        (b"\x0a\xff\xff\xff\x7f", "larger than the file"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x08" + b"\xff" * 12, "does not end"),
        (message(1, b"\x0a\x01a\x15\x00\x00\xc0\x7f"), "a piece's score is not a number"),
        (message(1, b"\x0a\x01a\x18\x09"), "a piece has the unknown type 9"),
        (message(1, b"\x0a\x01a") + message(3, b"\x10\x01"), "its table of normalization is not one"),
        (message(1, b"\x0a\x01a") + message(3, message(2, b"charsmap")), "its table of normalization is damaged"),
        (b"IQ== 0\nIg== 1\n", "a vocabulary of tiktoken"),
    ],
)
def test_what_is_no_model(data: bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_sentencepiece(data)
    assert said in str(caught.value)


def test_a_damaged_table_of_normalization_is_refused_before_a_library_follows_it() -> None:
    """Neither sentencepiece nor tokenizers looks whether its jumps stay inside."""
    data = sentencepiece_model(normalization_rule_name="nmt_nfkc")
    table = read_sentencepiece(data).charsmap
    at = data.index(table)
    size = int.from_bytes(table[:4], "little")
    for place in range(4, 4 + size, 4 * 1997):
        for unit in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\xfe\xff\x7f"):
            changed = bytearray(data)
            changed[at + place : at + place + 4] = unit
            with pytest.raises(InputError) as caught:
                read_sentencepiece(bytes(changed))
            assert "table of normalization is damaged" in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_give_pieces_or_one_clear_error(data: bytes) -> None:
    try:
        assert read_sentencepiece(data).texts
    except LlmbuildError as error:
        assert "tokenizer.model" in str(error)
