"""The report page: whole, alone, accessible; and what a real browser makes of it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.report.build_html import build_html
from llmbuild.report.build_report import build_report
from tests.helpers.build_events import BUILD, CONFIG, FAILED, KEY, KILLED, LOWER, NULL, TASKS, lines

BUILDS = {"build": BUILD, "failed": FAILED, "killed": KILLED, "null": NULL}
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
VOID = frozenset({"meta", "line", "rect", "path", "br"})


class Page(HTMLParser):
    """Collects elements; fails when one is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("name", BUILDS)
def test_the_page_is_well_formed_and_needs_nothing_else(name: str) -> None:
    text = build_html(build_report(lines(BUILDS[name])))
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "use", "image"}
    assert not re.search(r"url\(|@import|https?:|\bon\w+=|\b(src|href)=", text)
    assert page.of("html")[0]["lang"] == "en"
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("name", BUILDS)
def test_every_reference_has_its_target_and_ids_are_unique(name: str) -> None:
    page = Page(build_html(build_report(lines(BUILDS[name]))))
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for one in str(attributes.get("aria-labelledby") or "").split():
            assert one in ids
    for svg in page.of("svg"):
        assert svg["role"] == "img" and svg["aria-labelledby"]
    assert all(cell.get("scope") in ("row", "col") for cell in page.of("th"))


def test_every_task_is_in_the_table_and_in_the_graph() -> None:
    text = build_html(build_report(lines(BUILD)))
    for label in TASKS:
        assert f'<th scope="row"><code>{label}</code></th>' in text
    assert text.count('class="node') == len(TASKS) and text.count('class="arc') == 6
    assert text.count('class="bar') == 4


def test_text_of_others_is_escaped() -> None:
    text = build_html(build_report(lines(FAILED)))
    assert "24 GB &lt;and&gt; the target" in text and "<and>" not in text


def test_a_large_build_draws_a_part_and_lists_all() -> None:
    labels = tuple(f"config[m{number}, q4f32_1]" for number in range(1000))
    told: list[events.Event] = [events.PlanMade(time=0, tasks=labels, jobs=2, project="many", needs=((),) * 1000)]
    for label in labels:
        told.append(events.Started(time=1, label=label, action=KEY))
        told.append(
            events.Finished(time=2, label=label, action=KEY, output=KEY, output_size=1, wall_s=1, cpu_s=1, peak_rss=1)
        )
    text = build_html(build_report(lines(told)))
    assert text.count('class="bar') == 200 and text.count('class="node') == 200
    assert text.count('<th scope="row">') == 1000
    assert "The 800 shortest tasks are left out" in text


def browse(page: Path, *arguments: str) -> str:
    assert BROWSER is not None
    profile = page.parent / "profile"
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
            f"--user-data-dir={profile}", *arguments, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no chromium on PATH")

PROBE = """<script>
addEventListener("load", () => {
  const page = document.documentElement, scroll = document.querySelector(".scroll");
  const boxes = [...document.querySelectorAll(".node")].map(node => {
    const box = node.querySelector("rect").getBoundingClientRect();
    return [...node.querySelectorAll("text")].every(text => {
      const at = text.getBoundingClientRect();
      return at.left >= box.left && at.right <= box.right && at.top >= box.top && at.bottom <= box.bottom;
    });
  });
  const timeline = document.querySelector(".timeline").getBoundingClientRect();
  const bars = [...document.querySelectorAll(".bar")].map(bar => bar.getBoundingClientRect());
  document.title = JSON.stringify({
    wide: page.scrollWidth > page.clientWidth,
    boxes: boxes.every(Boolean),
    bars: bars.every(bar => bar.width > 0 && bar.left >= timeline.left - 1 && bar.right <= timeline.right + 1),
    background: getComputedStyle(document.body).backgroundColor,
    requests: performance.getEntriesByType("resource").length,
    scroll: scroll.scrollWidth > scroll.clientWidth,
  });
});
</script></head>"""
"""Added to the page by the test only; puts what the browser measured into the title, where --dump-dom shows it."""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "light"), (1280, "dark")])
def test_a_browser_lays_it_out(tmp_path: Path, width: int, scheme: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(build_html(build_report(lines(BUILD))).replace("</head>", PROBE))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    dom = browse(page, f"--window-size={width},1400", "--dump-dom", *dark)
    import html
    import json

    found = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", dom)[0]))
    assert found["wide"] is False, "nothing makes the page wider than its window"
    assert found["boxes"] is True, "no text leaves its box in the graph"
    assert found["bars"] is True, "every bar is inside the timeline"
    assert found["requests"] == 0
    assert found["background"] == ("rgb(21, 24, 28)" if scheme == "dark" else "rgb(251, 251, 250)")
    assert found["scroll"] is (width == 400), "a narrow page scrolls the graph and not itself"
    for label in (CONFIG, LOWER):
        assert dom.count(f"<code>{label}</code>") >= 2


@pytest.mark.slow
@needs_browser
def test_a_screenshot_shows_the_bars(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(build_html(build_report(lines(FAILED))))
    shot = tmp_path / "shot.png"
    browse(page, "--window-size=800,1600", f"--screenshot={shot}")
    width, height, colors = png_colors(shot)
    assert (width, height) == (800, 1600)
    # Bars on the critical path, the failed bar, the boxes of cached tasks, and the page itself.
    assert {(0xB4, 0x54, 0x0A), (0xB3, 0x26, 0x1E), (0xF0, 0xF1, 0xF3), (0xFB, 0xFB, 0xFA)} <= colors


def png_colors(path: Path) -> tuple[int, int, set[tuple[int, int, int]]]:
    """The size and all colours of an 8-bit RGB or RGBA picture (PNG specification, sections 9 and 11)."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    position, packed, header = 8, b"", b""
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        header = body if kind == b"IHDR" else header
        packed += body if kind == b"IDAT" else b""
        position += 12 + length
    width, height, depth, color = struct.unpack(">IIBB", header[:10])
    assert depth == 8 and color in (2, 6)
    step = 3 if color == 2 else 4
    raw, stride = zlib.decompress(packed), width * step
    before, colors = bytearray(stride), set()
    for row in range(height):
        start = row * (stride + 1)
        method, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for at in range(stride):
            left = line[at - step] if at >= step else 0
            up, corner = before[at], before[at - step] if at >= step else 0
            guess = left + up - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            line[at] = (line[at] + (0, left, up, (left + up) // 2, near)[method]) & 255
        colors |= {tuple(line[at : at + 3]) for at in range(0, stride, step)}
        before = line
    return width, height, colors  # type: ignore[return-value]
