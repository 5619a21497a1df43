"""A server of /v1/completions that draws nothing: a made-up language model, with the faults that real servers have."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.engine.http_server import QuietHandler, served_by

VOCABULARY = tuple("abcdefghij")


@dataclass
class Model:
    """What it answers.

    Attributes:
        noise: How far its logits are from those of the model without noise.
        max_logprobs: More are refused, as vLLM does; None refuses all, 0 ignores the wish.
        status: What it answers instead, from the request `fails_from` on.
        delay_s: Before each answer.
        extra_prompt_tokens: What its tokenizer adds.
    """

    noise: float = 0.0
    max_logprobs: int | None = 20
    status: int = 200
    fails_from: int = 0
    delay_s: float = 0.0
    extra_prompt_tokens: int = 0
    body: Any = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, request: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON."""
        self.asked.append(request)
        time.sleep(self.delay_s)
        if self.status != 200 and len(self.asked) > self.fails_from:
            return self.status, {"error": {"message": "as it was told"}}
        wanted = request.get("logprobs")
        if wanted is not None and (self.max_logprobs is None or wanted > self.max_logprobs > 0):
            return 400, {"error": {"message": f"logprobs={wanted} is not supported"}}
        return 200, self.body or self._completion(request, wanted if self.max_logprobs else None)

    def _completion(self, request: dict[str, Any], wanted: int | None) -> dict[str, Any]:
        tokens: list[str] = []
        values: list[float] = []
        tops: list[dict[str, float]] = []
        for _ in range(request["max_tokens"]):
            logits = self._logits(request["prompt"] + "".join(tokens))
            logprobs = dict(zip(VOCABULARY, (logits - math.log(np.exp(logits).sum())).tolist(), strict=True))
            listed = sorted(logprobs, key=lambda token: -logprobs[token])
            tokens.append(listed[0])
            values.append(logprobs[listed[0]])
            tops.append({token: logprobs[token] for token in listed[: wanted or 0]})
        choice = {"index": 0, "text": "".join(tokens), "finish_reason": "length", "logprobs": None}
        if wanted is not None:
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}
        count = len(request["prompt"].split()) + self.extra_prompt_tokens
        return {"choices": [choice], "usage": {"prompt_tokens": count, "completion_tokens": len(tokens)}}

    def _logits(self, text: str) -> Any:
        seed = int.from_bytes(text.encode()[-12:], "big") % 2**32
        logits = np.random.default_rng(seed).normal(0, 3, len(VOCABULARY))
        return logits + self.noise * np.random.default_rng(seed + 1).normal(0, 1, len(VOCABULARY))


@contextlib.contextmanager
def serving(model: Model) -> Iterator[str]:
    """Serve it; yields its address."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802  # the name that http.server looks for
            self._send(200, {"data": [{"id": "made-up"}], "version": "1"})

        def do_POST(self) -> None:  # noqa: N802  # likewise
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with contextlib.suppress(BrokenPipeError):  # the client has left
                self._send(*model.answer(request))

        def _send(self, status: int, body: Any) -> None:
            self.send_body(status, body if isinstance(body, bytes) else json.dumps(body).encode())

    with served_by(Handler) as address:
        yield address
