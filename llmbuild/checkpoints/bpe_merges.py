"""Merges for a vocabulary that has scores in their place, as SentencePiece's BPE models do."""

from __future__ import annotations

from collections.abc import Mapping

MAX_PIECE = 512
"""Characters of a token that is put together from others; SentencePiece makes none of more than 16 by default."""
MAX_LETTERS = 1 << 23
"""Of all tokens: each is cut everywhere.  A vocabulary of 262,000 tokens has under two million."""
MAX_WAYS = 16
"""In how many ways the tokens of a vocabulary can be cut in two, by token; published ones have two or three."""


def merges_of_scores(pieces: Mapping[str, tuple[float, int]]) -> list[list[str]]:
    """Pairs in the order in which SentencePiece joins them: the pair whose result has the best score comes first.

    `pieces` has the tokens that are put together, each with its score and number; every way to make one of two others is a
    merge of that rank.  Raises ValueError for a vocabulary that has absurdly many of them.
    """
    longest = max(map(len, pieces), default=0)
    if longest > MAX_PIECE:
        raise ValueError(f"one has {longest} characters, and {MAX_PIECE} are the most")
    if (letters := sum(map(len, pieces))) > MAX_LETTERS:
        raise ValueError(f"they have {letters} characters, and {MAX_LETTERS} are the most")
    most = MAX_WAYS * len(pieces) + MAX_PIECE
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, (score, _) in pieces.items():
        if len(ranked) > most:
            raise ValueError(f"they can be put together from others in more than {most} ways")
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in pieces and right in pieces:
                ranked.append((-score, pieces[left][1], pieces[right][1], left, right))
    ranked.sort()
    return [[left, right] for _, _, _, left, right in ranked]
