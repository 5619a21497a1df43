"""A completions request as the bytes that go out.

They are made at copying speed, as a long prompt must not hold up the stamps of other streams.
"""

import json
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt


class MessageWriter:
    """Writes HTTP requests to one model of one server."""

    def __init__(self, url: str, model: str, vocab_size: int) -> None:
        """Prepare the text of every token id: right-aligned, as JSON may have blanks before values, with a comma."""
        parts = urlsplit(url)
        self._head = (
            f"POST {parts.path.rstrip('/')}/v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()
        self._model = model
        width = len(str(vocab_size))
        ids, powers = np.arange(vocab_size)[:, None], 10 ** np.arange(width)[::-1]
        digits = np.where((ids < powers) & (powers > 1), ord(" "), ids // powers % 10 + ord("0"))
        commas = np.full((vocab_size, 1), ord(","))
        self._texts = np.hstack([digits, commas]).astype(np.uint8).view(f"S{width + 1}").ravel()

    def message(self, prompt: npt.NDArray[np.int64], osl_tokens: int) -> bytes:
        """Ask for exactly `osl_tokens` tokens, streamed, with the running usage in every chunk."""
        settings = json.dumps({
            "model": self._model,
            "max_tokens": osl_tokens,
            "min_tokens": osl_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        })  # fmt: skip
        body = b'{"prompt":[%b],%b' % (self._texts[prompt].tobytes()[:-1], settings[1:].encode())
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
