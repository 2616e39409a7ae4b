"""A server for one app on this machine: browsers give the camera to pages from localhost."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any

from fertool.errors import FertoolError
from fertool.web.pages import INDEX, AppFiles

HOST = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_HEADERS = {
    # The next run may serve another model under the same address.
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # What a page cannot say of itself: no other page may show it in a frame.
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class AppServer(ThreadingHTTPServer):
    """A server of some files, and of nothing else, on 127.0.0.1.

    The port is taken at once, before there are files; 0 is any that is free. Raises FertoolError
    where another program has it.
    """

    # A browser may keep a connection open, and Ctrl-C must not wait for them.
    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.files: AppFiles = {}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise FertoolError(
                f"``serve={port}``: the port cannot be opened ({error.strerror})",
                "another program has it; choose another, or ``serve=0`` for any that is free",
            ) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: AppServer
    # Not the versions of fertool and Python: no page needs them.
    server_version = "fertool"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, *, with_content: bool) -> None:
        name = self.path.partition("?")[0].removeprefix("/") or INDEX
        # A name of the app, never a path of this machine.
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        suffix = PurePosixPath(name).suffix
        self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        for header, value in _HEADERS.items():
            self.send_header(header, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: requests are no news to who started the command."""
