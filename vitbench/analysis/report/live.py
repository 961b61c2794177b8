"""The report of a sweep that runs, over HTTP to this machine alone, made anew as the ledger grows.

Rendering and serving are apart: a request is answered with the page made last, however large the
sweep is. The address holds a token, and nothing but GET is answered.
"""

from __future__ import annotations

import hashlib
import mimetypes
import secrets
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vitbench.analysis import figures, page
from vitbench.analysis.report import report
from vitbench.analysis.results import load
from vitbench.records.tables import LEDGER, Growing

_SERVED = (".png", ".pdf", ".csv", ".yaml", ".json")  # what the page links to
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'"
)


@dataclass(frozen=True)
class Page:
    """A page as it is sent, and a version by which a browser knows that it has changed."""

    body: bytes
    version: str


class Watch:
    """A results folder and the latest page of it."""

    def __init__(self, folder: Path) -> None:
        """Make the first page.

        Raises:
            UserError: if the folder holds no results.
        """
        self.folder = folder
        self._growing = Growing(folder)
        self._seen = self._state()
        self.page = self._made()

    def refresh(self) -> bool:
        """Make the page again if the ledger has grown; returns whether it did."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen, self.page = state, self._made()
        return True

    def keep_fresh(self, stop: threading.Event, every_s: float = 2.0) -> None:
        """Look again and again, at most a third of the time at work, until told to stop."""
        pause_s = every_s
        while not stop.wait(pause_s):
            began = time.monotonic()
            try:
                self.refresh()
            except Exception as error:  # the page made last is right still; look again later
                print(f"{self.folder}: not read this time ({error})", file=sys.stderr)
            pause_s = max(every_s, 2 * (time.monotonic() - began))

    def _state(self) -> tuple[int, int] | None:
        """Size and time of the ledger; None where results came without one."""
        ledger = self.folder / LEDGER
        if not ledger.is_file():
            return None
        found = ledger.stat()
        return found.st_size, found.st_mtime_ns

    def _made(self) -> Page:
        results = load(self.folder, growing=self._growing)
        version = hashlib.sha256(repr((self._state(), results.partial)).encode()).hexdigest()[:16]
        if results.trials.empty:
            told = {"name": results.sweep["name"], "live": version}
            return Page(page.render("waiting.html", told).encode(), version)
        with tempfile.TemporaryDirectory() as scratch:
            drawn = figures.draw_main(results, Path(scratch))
            text = report.text_of(results, drawn, live=version)
        return Page(text.encode(), version)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of the page, of its version and of the files that it links to."""

    server: Server

    def do_GET(self) -> None:
        """Send what was asked for; 404 for anything else, whatever it is."""
        token, _, rest = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        # A name that points here from elsewhere (DNS rebinding) is not ours.
        host = (self.headers.get("Host") or "").partition(":")[0]
        if not known or host not in ("127.0.0.1", "localhost"):
            self.send_error(HTTPStatus.NOT_FOUND)
        elif rest == "":
            self._send(self.server.watch.page.body, "text/html; charset=utf-8")
        elif rest == "version":
            self._send(self.server.watch.page.version.encode(), "text/plain")
        else:
            self._send_file(self.server.watch.folder.resolve(), rest)

    def _send_file(self, folder: Path, name: str) -> None:
        path = (folder / name).resolve()
        if path.suffix in _SERVED and path.is_relative_to(folder) and path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "text/plain"
            self._send(path.read_bytes(), kind)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the token would stand in the log."""


class Server(ThreadingHTTPServer):
    """Serves one watch on loopback; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, watch: Watch, port: int = 0) -> None:
        self.watch, self.token = watch, secrets.token_urlsafe(16)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """What to open in a browser on this machine."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"
