"""A local HTTP server with configurable failures."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `files`; `plan[path]` lists failures of the next requests, after which all succeed.

    The items of a plan are: a status code; ``("drop", n)`` to disconnect after n bytes;
    ``("hang", s)`` to send nothing for s seconds; ``("drip", s)`` to send a byte every s seconds;
    ``("bytes", b)`` to send b instead; ``("length", n)`` to announce n bytes too many;
    ``("redirect", a)`` to redirect to a; ``("endless", b)`` to send b until the client disconnects.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plan: dict[str, list[object]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.tag = '"v1"'
        self.ranges = True
        self.encoding = ""
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        byte_range = self.headers.get("Range")
        server.requests.append((self.path, byte_range))
        plan = server.plan.get(self.path) or []
        step = plan.pop(0) if plan else None
        if isinstance(step, int):
            self.send_error(step)
            return
        kind, value = step if isinstance(step, tuple) else (None, None)
        if kind == "hang":
            server.closing.wait(value)
            return
        if kind == "redirect":
            self.send_response(302)
            if value:
                self.send_header("Location", value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "endless":
            self.send_response(200)
            self.end_headers()
            while not server.closing.is_set():
                self.wfile.write(value)
            return
        if self.path not in server.files and kind != "bytes":
            self.send_error(404)
            return
        content = value if kind == "bytes" else server.files[self.path]
        start, code = 0, 200
        if byte_range and server.ranges and self.headers.get("If-Range") == server.tag:
            start, code = int(byte_range.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                self.send_error(416)
                return
        body = content[start:]
        self.send_response(code)
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(body) + (value if kind == "length" else 0)))
        self.end_headers()
        if kind == "drop":
            self.wfile.write(body[:value])
            self.wfile.flush()
            self.connection.close()
        elif kind == "drip":
            for i in range(len(body)):
                if server.closing.is_set():
                    return
                self.wfile.write(body[i : i + 1])
                self.wfile.flush()
                time.sleep(value)
        else:
            self.wfile.write(body)

    def handle(self) -> None:
        # The client disconnected, or a plan closed the connection.
        with contextlib.suppress(OSError, ValueError):
            super().handle()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving_raw(*answers: bytes, pause: float = 0.0, then_hang: bool = False) -> Iterator[str]:
    """Yields the address of a server that sends raw bytes as responses; the last one repeats.

    Args:
        answers: the responses; each closes its connection.
        pause: seconds between the bytes of a response; 0 sends it at once.
        then_hang: keep the connections open after the responses.
    """
    closing = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answer(connection: socket.socket, data: bytes) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            request = b""
            while b"\r\n\r\n" not in request and (received := connection.recv(4096)):
                request += received
            if not pause:
                connection.sendall(data)
            for i in range(len(data) if pause else 0):
                if closing.wait(pause):
                    return
                connection.sendall(data[i : i + 1])
            if then_hang:
                closing.wait(60)

    def accept() -> None:
        for n in itertools.count():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                if closing.is_set():
                    connection.close()
                    return
                data = answers[min(n, len(answers) - 1)]
                threads.append(threading.Thread(target=answer, args=(connection, data)))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), 1.0).close()
        accepting.join()
        listener.close()
        for thread in threads:
            thread.join()
