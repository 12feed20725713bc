"""A browser for tests: headless Chromium with WebGPU in software, and the npm package of WebLLM as it is published.

A page is served on loopback; it runs a script and posts what it found.  What the browser writes to its console comes
back too, since a shader that does not compile is told nowhere else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from tests.helpers.loopback import FileHandler, serving
from tests.helpers.node import install, node_modules

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
WEB_LLM = "@mlc-ai/web-llm"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
)

PRELUDE = """
const post = (path, value) => fetch(path, {method: "POST", body: JSON.stringify(value)});
for (const level of ["log", "warn", "error"]) {
  const original = console[level];
  console[level] = (...words) => { original(...words); post("/console", [level, ...words.map(String)]); };
}
window.addEventListener("error", event => post("/console", ["error", String(event.message)]));
window.addEventListener("unhandledrejection", event => post("/console", ["error", String(event.reason)]));
// Each shader is compiled as the application asks for it; this only listens to what the compiler says.
const shaders = {count: 0, messages: []};
const createShaderModule = GPUDevice.prototype.createShaderModule;
const pending = [];
GPUDevice.prototype.createShaderModule = function (descriptor) {
  const module = createShaderModule.call(this, descriptor);
  shaders.count += 1;
  pending.push(module.getCompilationInfo().then(info => {
    for (const message of info.messages)
      if (message.type === "error")
        shaders.messages.push([message.message, message.lineNum, descriptor.code]);
  }));
  return module;
};
const requestDevice = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (descriptor) {
  const device = await requestDevice.call(this, descriptor);
  device.addEventListener("uncapturederror", event => {
    shaders.messages.push([event.error.message, 0, ""]);
    console.error(event.error.message);
  });
  return device;
};
try {
  const result = await (async () => { SCRIPT })();
  await Promise.all(pending);
  await post("/result", {result, shaders});
} catch (error) {
  await Promise.all(pending);
  await post("/result", {error: String(error && error.stack || error), shaders});
}
"""


def chromium() -> str | None:
    """The browser's command."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def web_llm() -> Path | None:
    """The directory of WebLLM's package."""
    place = node_modules(WEB_LLM)
    return None if place is None else place / WEB_LLM


def missing() -> str | None:
    """Why no library can be tried in a browser here, for skipping a test; None when it can."""
    if shutil.which("emcc") is None:
        return "needs Emscripten (Debian: apt install emscripten)"
    if chromium() is None:
        return "needs Chromium (Debian: apt install chromium)"
    if web_llm() is None:
        return f"needs WebLLM ({install(WEB_LLM)})"
    return None


@dataclass
class Visit:
    """What a page reported: its result, the shaders that were compiled with what was wrong in them, and the console."""

    result: Any = None
    error: str | None = None
    shaders: Mapping[str, Any] = field(default_factory=dict)
    console: list[list[str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def value(self) -> Any:
        """The result; fails with everything that the browser said when the page did."""
        said = "\n".join(" ".join(line)[:2000] for line in self.console[-60:])
        assert self.error is None, f"{self.error}\n{said}"
        assert not self.shaders["messages"], f"{json.dumps(self.shaders['messages'][:3], indent=1)}\n{said}"
        return self.result


class _Handler(FileHandler):
    """The page, the files that it asks for, and what it posts."""

    def __init__(self, page: str, roots: Mapping[str, Path], visit: Visit, done: threading.Event, *rest: Any) -> None:
        self.page, self.visit, self.done = page, visit, done
        super().__init__(roots, *rest)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.visit.requests.append(path)
        if path == "/":
            self.answer(200, self.page.encode(), "text/html")
        else:
            super().do_GET()

    def do_POST(self) -> None:
        value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(204, b"", "text/plain")
        if self.path == "/console":
            self.visit.console.append(cast("list[str]", value))
        elif self.path == "/result" and not self.done.is_set():
            self.visit.result, self.visit.error = value.get("result"), value.get("error")
            self.visit.shaders = value["shaders"]
            self.done.set()


def visit(script: str, roots: Mapping[str, Path], *, timeout: float = 240) -> Visit:
    """Run a script (the body of an async function) in a page and return what came of it.

    `roots` are directories by the first part of their URL: {"dist": …} serves /dist/….
    """
    found, done = Visit(), threading.Event()
    page = f'<!doctype html><script type="module">{PRELUDE.replace("SCRIPT", script)}</script>'
    browser = chromium()
    assert browser is not None
    with (
        serving(partial(_Handler, page, roots, found, done)) as address,
        tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile,
    ):
        log = Path(profile) / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [browser, *FLAGS, f"--user-data-dir={profile}/profile", f"{address}/"], stdout=output, stderr=output
            )
            try:
                # The browser may end by itself; then no result will ever come.
                for _ in range(int(timeout)):
                    if done.wait(1) or process.poll() is not None:
                        break
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
        if not done.is_set():
            found.error = f"no result came within {timeout:.0f} s\n{log.read_text(errors='replace')[-3000:]}"
    return found
