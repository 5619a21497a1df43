"""One HTTP answer: takes the framing off and gives what is in it to the tally."""

import httptools

from pipeline.errors import LoadError
from pipeline.load.tally import Tally

_MAX_ERROR_CHARS = 200


class Answer:
    """Fed with the bytes of one answer, wherever they were cut.

    Attributes:
        may_follow: Whether the connection stays open for another request; known when the answer is over.
    """

    def __init__(self, tally: Tally) -> None:
        """Nothing has come yet."""
        self._tally = tally
        self._pieces: list[bytes] = []
        self._is_over = self.may_follow = False
        self._error_body = b""
        self.on_body = self._pieces.append  # httptools calls it for every piece of the body
        self._parser = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        """Called by httptools."""
        self._is_over = True
        self.may_follow = self._parser.should_keep_alive()

    def feed(self, data: bytes, now_ns: int) -> bool:
        """Take bytes that came at `now_ns`; returns whether the answer is over.

        Raises:
            LoadError: If it is not what was asked for.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise LoadError(f"the answer is not HTTP: {error}") from error
        if self._pieces:
            body = b"".join(self._pieces)
            self._pieces.clear()
            if self._parser.get_status_code() == 200:
                self._tally.feed(body, now_ns)
            else:
                self._error_body += body
        if self._is_over:
            self._check()
        return self._is_over

    def cut_off(self, error: Exception | None) -> None:
        """The connection is gone, which is how some servers end an answer.

        Raises:
            LoadError: If it was not complete.
        """
        if not self._tally.is_done and not self._error_body:
            why = str(error or "") or "closed by the server"
            raise LoadError(f"the connection broke after {self._tally.total} tokens: {why}")
        self._check()

    def _check(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            text = " ".join(self._error_body.decode(errors="replace").split())
            raise LoadError(f"HTTP {status}: {text[:_MAX_ERROR_CHARS]}")
        self._tally.close()
