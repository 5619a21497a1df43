"""A small HTTP server with fixed answers, in a thread of the test."""

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping

Answer = str | bytes | int
"""What a path answers: a body with status 200, or an error status."""


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Answers with a body, and says nothing on the way."""

    def send_body(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def served_by(handler: type[QuietHandler]) -> Iterator[str]:
    """A server in a thread; yields its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serving(answers: Mapping[str, Answer], asked: list[str] | None = None) -> Iterator[str]:
    """A server that answers GET and POST alike, 404 where it has no answer; yields its address.

    Args:
        answers: By path; may change while it serves.
        asked: Gets every path that is asked for.
    """

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if asked is not None:
                asked.append(self.path)
            answer = answers.get(self.path, 404)
            body = answer.encode() if isinstance(answer, str) else answer if isinstance(answer, bytes) else b"an error"
            self.send_body(answer if isinstance(answer, int) else 200, body)

        do_POST = do_GET  # noqa: N815  # the name that http.server looks for

    with served_by(Handler) as address:
        yield address
