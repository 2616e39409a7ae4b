import threading
import urllib.error
import urllib.request

import pytest

from fertool.errors import FertoolError
from fertool.web.server import AppServer


@pytest.fixture
def server():
    with AppServer(0) as server:
        server.files = {"index.html": b"<p>page</p>", "main.js": b"1"}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_it_is_for_this_machine_and_serves_its_files(server):
    assert server.server_address[0] == "127.0.0.1"
    with urllib.request.urlopen(server.url) as answer:
        assert answer.read() == b"<p>page</p>"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    with urllib.request.urlopen(f"{server.url}main.js?v=1") as answer:
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["other.html", "../pyproject.toml", "%2e%2e/secret", "main.js/"])
def test_and_nothing_else(server, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(server.url + path)


def test_a_port_that_another_program_has_is_one_error(server):
    with pytest.raises(FertoolError, match=f"``serve={server.server_port}``: the port") as caught:
        AppServer(server.server_port)
    assert "``serve=0``" in caught.value.hint
