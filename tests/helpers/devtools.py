"""A page in headless Chromium, driven from outside by the browser's DevTools protocol, as a person would use it.

The protocol goes through two pipes (`--remote-debugging-pipe`): messages are JSON with a zero byte at the end
(https://chromedevtools.github.io/devtools-protocol/).  The page is left as it is: nothing of a test is served with it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.browser import FLAGS, chromium

# A promise of a value that is true, looked for again whenever the document changes.
WHEN = """new Promise(resolve => {
  const look = () => { const found = (() => { try { return CONDITION } catch { return null } })();
                       if (found) { observer.disconnect(); resolve(found); } };
  const observer = new MutationObserver(look);
  observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  look();
})"""


@dataclass
class Page:
    """An open page; `requests` are the addresses that it asked for, `said` what it wrote to the console."""

    to_browser: int
    from_browser: int
    deadline: float
    session: str = ""
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _last: int = 0
    _rest: bytes = b""

    def call(self, method: str, **params: Any) -> Any:
        """The result of a method of the protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = self.deadline - time.monotonic()
            ready = left > 0 and select.select([self.from_browser], [], [], left)[0]
            piece = os.read(self.from_browser, 1 << 20) if ready else b""
            assert piece, "the browser said nothing more\n" + "\n".join(self.said[-40:])
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        params = answer.get("params", {})
        if answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif answer.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"])[:1000])
        elif answer.get("method") == "Log.entryAdded":
            self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return answer

    def open(self, url: str) -> None:
        """Go to an address; the console and the requests begin anew."""
        self.requests.clear()
        self.said.clear()
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, of a promise what it promises."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        said = "\n".join(self.said[-40:])
        assert "exceptionDetails" not in result, f"{json.dumps(result['exceptionDetails'])[:2000]}\n{said}"
        return result["result"].get("value")

    def when(self, condition: str) -> Any:
        """The value of an expression in the page, as soon as it is true."""
        return self.run(WHEN.replace("CONDITION", condition))

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_browser(
    *,
    timeout: float,
    flags: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Iterator[Page]:
    """A browser with an empty page, which has `timeout` seconds for everything."""
    browser = chromium()
    assert browser is not None
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        # The browser takes the descriptors 3 and 4.
        script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        own = ["--remote-debugging-pipe", "--window-size=900,700", f"--user-data-dir={profile}/profile"]
        command = [
            "bash",
            "-c",
            script,
            "bash",
            browser,
            *(flag for flag in FLAGS if flag not in without),
            *flags,
            *own,
            "about:blank",
        ]
        with (Path(profile) / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=(read_commands, write_answers))
        os.close(read_commands)
        os.close(write_answers)
        try:
            page = Page(write_commands, read_answers, time.monotonic() + timeout)
            targets = page.call("Target.getTargets")["targetInfos"]
            target = next(one["targetId"] for one in targets if one["type"] == "page")
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            os.close(write_commands)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(read_answers)
