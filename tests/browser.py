"""A headless chromium, driven through its debugging socket."""

import json
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """A headless chromium, and what it complained about and asked for."""

    def __init__(self, profile: Path):
        self.profile = profile
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0

    def __enter__(self):
        import urllib.request

        import websocket

        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--disable-dev-shm-usage --remote-debugging-port=0 --remote-allow-origins=*"
        )
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *flags.split(), f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port_file = self.profile / "DevToolsActivePort"
            wait_for(lambda: port_file.exists() and "\n" in port_file.read_text())
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=20) as answer:
                targets = json.load(answer)
            url = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
            self._socket = websocket.create_connection(url, timeout=30)
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        wait_for(
            lambda: self.run(f"location.href === {url!r} && document.readyState === 'complete'")
        )

    def size(self, width: int, height: int = 800) -> None:
        given = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **given)

    def drawn_after(self, mark: str = "drawn") -> float:
        """Milliseconds from the navigation until every chart of a report was drawn.

        Args: mark: "first drawn" is until one was.
        """
        wait_for(lambda: self.run(f"performance.getEntriesByName('{mark}').length === 1"))
        return self.run(f"performance.getEntriesByName('{mark}')[0].startTime")

    def run(self, script: str):
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def call(self, method: str, **params):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str, params: dict) -> None:
        if event == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith("data:"):
                self.requests.append(url)
        elif event in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(params)[:500])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"])[:500])


def wait_for(done, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "chromium did not answer in time"
        time.sleep(0.05)


def violations(browser) -> list[str]:
    """What axe says against the open page: WCAG 2.1 A and AA, and its best practices."""
    script = Path(find_spec("axe_core_python").origin).with_name("axe.min.js")
    browser.run(script.read_text() + ";0")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    return browser.run(
        f"axe.run({{runOnly: {tags}}}).then(found => found.violations.map(v => v.id + ': '"
        " + v.help + ' ' + v.nodes.slice(0, 4).map(n => n.html.slice(0, 200)).join(' | ')))"
    )
