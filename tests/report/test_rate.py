"""Rates and what is left, from reports of progress at given moments."""

from __future__ import annotations

from llmbuild.report.rate import Progress, amount_text, clock, left_text, rate_text


def download(*moments: tuple[float, int], total: int = 100_000_000) -> Progress:
    progress = Progress(100.0)
    for now, done in moments:
        progress.advance(100.0 + now, done, total, "bytes")
    return progress


def test_a_steady_download() -> None:
    progress = download((1, 10_000_000), (2, 20_000_000))
    assert progress.share == 0.2
    assert progress.rate(102) == 10_000_000
    assert progress.left(102) == 8.0
    assert (amount_text(progress), rate_text(progress, 102)) == ("20.0 MB of 100.0 MB", "10.0 MB/s")


def test_the_rate_is_that_of_the_last_seconds() -> None:
    slow = [(float(second), second * 1_000_000) for second in range(1, 21)]
    fast = [(20.0 + second, 20_000_000 + second * 5_000_000) for second in range(1, 12)]
    assert download(*slow, *fast).rate(131) == 5_000_000


def test_a_download_that_stands_still_slows_down() -> None:
    progress = download((1, 10_000_000), (2, 20_000_000))
    assert progress.rate(104) == 5_000_000
    assert progress.left(104) == 16.0


def test_what_is_unknown_is_not_guessed() -> None:
    assert Progress(0).share is Progress(0).left(50) is None
    assert amount_text(Progress(0)) == rate_text(Progress(0), 50) == ""
    unknown = download((2, 10_000_000), total=0)
    assert (unknown.share, unknown.left(102), amount_text(unknown)) == (None, None, "10.0 MB")
    assert rate_text(unknown, 102) == "5.0 MB/s"
    assert download((0.5, 10_000_000)).rate(100.5) == 0, "half a second says nothing"
    assert download((1, 0), (5, 0)).left(105) is None


def test_other_units_have_no_rate_and_a_new_unit_begins_anew() -> None:
    progress = download((1, 10_000_000))
    progress.advance(102, 3, 30, "layers")
    assert rate_text(progress, 104) == ""
    assert progress.rate(104) == 0, "nothing has gone on since the first report of layers"
    progress.advance(105, 9, 30, "layers")
    assert progress.rate(105) == 2
    assert progress.left(105) == 10.5


def test_texts() -> None:
    assert [left_text(value) for value in (None, -3, 0.4, 1, 12.4, 59.4, 59.6, 3700)] == [
        "", "", "", "1 s left", "12 s left", "59 s left", "1 min 0 s left", "1 h 1 min left",
    ]  # fmt: skip
    assert [clock(value) for value in (-1, 0, 7.9, 754, 3723)] == ["0:00", "0:00", "0:07", "12:34", "1:02:03"]
