"""The command `tradax serve`: a live page of a directory of runs, for this machine only.

It listens on 127.0.0.1, answers GET and HEAD under its own names (so that a page of a stranger,
whose name is made to point here, gets nothing), and sends only what it lists itself: no path of a
request is ever joined to the directory. Reports are shown in a sandbox: a stranger's report cannot
read this page, nor send anything.
"""

import dataclasses
import errno
import hashlib
import os
import re
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tyro

from tradax import signals
from tradax.errors import ConfigError, TradaxError
from tradax.listing import SERVED, Listing

HOST = "127.0.0.1"


@dataclasses.dataclass(kw_only=True)
class ServeOptions:
    """A live local page of a directory of runs and sweeps: their progress, and links to reports.

    It is served to this machine only, until Ctrl-C."""

    folder: tyro.conf.Positional[str] = "runs"
    """The directory; runs and sweeps are found in it and in its folders."""
    port: int = 8642
    """Of 127.0.0.1; 0 takes a free one."""
    debug: bool = False
    """Show tracebacks, and a line a request."""


def command(options: ServeOptions) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns: the exit code."""
    try:
        with (
            signals.interrupts(),
            open_server(options.folder, options.port, verbose=options.debug) as server,
        ):
            print(f"serving {options.folder} at {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # after the terminal's ^C
    return 0


class Server(ThreadingHTTPServer):
    """Answers about one directory."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int, *, verbose: bool):
        super().__init__((HOST, port), _Handler)
        self.listing, self.verbose = Listing(folder), verbose
        self.title = f"Runs in {self.listing.root.name or self.listing.root}"
        port = self.server_port
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        if port == 80:
            self.hosts |= {HOST, "localhost"}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who has gone is no error."""
        if self.verbose and not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def open_server(folder: Path | str, port: int = 8642, *, verbose: bool = False) -> Server:
    """Listens from now on; `serve_forever` answers.

    Raises:
        TradaxError: no such directory, or the port is not to be had.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such directory; give one that holds runs")
    if not 0 <= port <= 65_535:
        raise ConfigError(f"port is {port}; it must be between 0 and 65535")
    try:
        return Server(folder, port, verbose=verbose)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"is no use ({error.strerror})"
        other = port + 1 if 1024 <= port < 65_535 else 8643
        raise TradaxError(
            f"port {port} of {HOST} {why}; give another, such as --port {other}, or --port 0 for "
            "a free one"
        ) from None


_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OWN = f"{_NOTHING}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
_REPORT = (
    f"{_NOTHING}; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "sandbox allow-scripts allow-downloads allow-modals"
)
_FILE = re.compile(rf"/file/([0-9a-f]{{32}})/({'|'.join(map(re.escape, SERVED))})")
_TYPES = {".html": "text/html", ".json": "application/json", ".csv": "text/csv"}


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "tradax", ""
    timeout = 30  # of a reader who takes nothing

    def do_GET(self) -> None:
        from tradax.reporting import dashboard

        if self.headers.get_all("Host") is None or any(
            host.lower() not in self._own.hosts for host in self.headers.get_all("Host", [])
        ):
            return self._refuse(403, "this server answers only under its own names")
        if self.path == "/":
            snapshot = self._own.listing.snapshot()
            return self._send(dashboard.page(self._own.title, snapshot), "text/html", _OWN)
        if self.path == "/runs.json":
            state = dashboard.state(self._own.listing.snapshot())
            return self._send(state, "application/json", _NOTHING, tagged=True)
        if self.path == "/dashboard.css":
            return self._send(dashboard.style(), "text/css", _NOTHING)
        if self.path == "/dashboard.js":
            return self._send(dashboard.script(), "text/javascript", _NOTHING)
        if found := _FILE.fullmatch(self.path):
            return self._send_file(*found.groups())
        return self._refuse(404, "no such page")

    do_HEAD = do_GET

    @property
    def _own(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def _refused_method(self) -> None:
        self._refuse(405, "this server only shows", Allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refused_method

    def _send(self, text: str, kind: str, policy: str, *, tagged: bool = False) -> None:
        content = text.encode("utf-8", errors="replace")
        headers = {}
        if tagged:
            headers["ETag"] = tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            if self.headers.get("If-None-Match") == tag:
                return self._begin(304, policy, **headers)
        self._begin(200, policy, kind=kind, length=len(content), **headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_file(self, key: str, name: str) -> None:
        """A file that the page lists, by its id."""
        path = self._own.listing.snapshot().files.get(key)
        if path is None or path.name != name:
            return self._refuse(404, "no such file; it may have gone")
        root = self._own.listing.root
        try:
            if not path.resolve().is_relative_to(root):  # a folder has become a link since
                raise OSError
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return self._refuse(404, "no such file; it may have gone")
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            self._begin(200, _REPORT, kind=_TYPES[path.suffix], length=size)
            if self.command != "HEAD":
                shutil.copyfileobj(file, self.wfile)

    def _refuse(self, status: int, why: str, **headers: str) -> None:
        content = f"{why}\n".encode()
        self._begin(status, _NOTHING, kind="text/plain", length=len(content), **headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _begin(
        self, status: int, policy: str, *, kind: str = "", length: int | None = None, **more: str
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
            **more,
        }
        if length is not None:
            headers |= {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(length)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        if self._own.verbose:
            super().log_message(format, *args)
