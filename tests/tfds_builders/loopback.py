"""A web server on this machine that misbehaves as told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """What a server answers next: the answers of a path one after the other, the last for good.

    Attributes:
        address: of the server.
        asked: (path, Range header) of every request.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[tuple[str, str | None]] = []
        self.answers: dict[str, list[Answer]] = {}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((handler.path, handler.headers["Range"]))
        queue = self.answers[handler.path]
        (queue.pop(0) if len(queue) > 1 else queue[0])(handler)


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Runs a server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def send(body: bytes, status: int = 200, cut_at: int | None = None, **headers: str) -> Answer:
    """Answers with a body; with `cut_at` the connection ends before the promised length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body[:cut_at])

    return answer


def ranged(body: bytes, cut_at: int | None = None) -> Answer:
    """As `send`, but honours `Range: bytes=N-`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        if start >= len(body):
            send(b"", 416)(handler)
        elif start:
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            send(body[start:], 206, cut_at, Content_Range=content_range)(handler)
        else:
            send(body, 200, cut_at)(handler)

    return answer
