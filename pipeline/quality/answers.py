"""Greedy answers of one server to fixed prompts, through /v1/completions."""

import http.client
import urllib.error
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.engine.direct import FAILURES, as_object, post
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        text: Its text.
        prompt_tokens: Length of the prompt by the server's count; None where it does not say.
        num_tokens: Output tokens by the server's count.
        tokens: Text of each output token; empty where the server gives none.
        logprobs: For each token the likeliest ones with their log-probabilities (nats), its own among them.
    """

    text: str
    prompt_tokens: int | None
    num_tokens: int
    tokens: tuple[str, ...] = ()
    logprobs: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server to ask.

    Attributes:
        side: candidate or reference, for messages.
        url: Base address.
        model: Name that it serves the model under.
        timeout_s: Patience for one answer.
    """

    side: str
    url: str
    model: str
    timeout_s: float


def ask_all(
    endpoint: Endpoint, prompts: Sequence[str], max_tokens: int, logprobs: int | None, concurrency: int
) -> tuple[Answer, ...]:
    """Answers to the prompts, in their order.

    Raises:
        ConfigError: If the server refuses one, fails, does not answer in time, or answers anything else.
    """
    ask = partial(_ask, endpoint, max_tokens=max_tokens, logprobs=logprobs)
    with ThreadPoolExecutor(concurrency) as pool:
        return tuple(pool.map(ask, prompts))


def supported_logprobs(endpoint: Endpoint, prompt: str, wanted: int) -> int | None:
    """Log-probabilities that the server gives at each token: those wanted, or one; None if it gives none.

    Raises:
        ConfigError: If it does not answer at all.
    """
    for asked in dict.fromkeys([wanted, 1]):
        try:
            if _ask(endpoint, prompt, max_tokens=1, logprobs=asked).logprobs:
                return asked
        except RefusedError:
            continue
    return None


class RefusedError(ConfigError):
    """The server does not take a request of this form."""


def _ask(endpoint: Endpoint, prompt: str, *, max_tokens: int, logprobs: int | None) -> Answer:
    name = f"{endpoint.side}={endpoint.url}"
    body: dict[str, Any] = {"model": endpoint.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    body |= {} if logprobs is None else {"logprobs": logprobs}
    try:
        found = as_object(post(f"{endpoint.url}/v1/completions", body, endpoint.timeout_s))
    except urllib.error.HTTPError as error:
        kind = RefusedError if 400 <= error.code < 500 and error.code != 429 else ConfigError
        said = " ".join(error.read(300).decode(errors="replace").split())
        raise kind(f"{name}: answers HTTP {error.code} to a completion: {said}; see its log") from error
    except TimeoutError as error:
        raise ConfigError(
            f"{name}: gave no answer within quality.timeout_s={endpoint.timeout_s:g}; raise it, or see the server's log"
        ) from error
    except (*FAILURES, http.client.HTTPException) as error:
        raise ConfigError(f"{name}: cannot be asked ({error}); is the server up?") from error
    try:
        return _answer(found)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name}: its answer is no completion: {str(found)[:200]}") from error


def _answer(found: Mapping[str, Any]) -> Answer:
    choice, usage = found["choices"][0], found.get("usage") or {}
    given = choice.get("logprobs") or {}
    tokens, values = given.get("tokens") or [], given.get("token_logprobs") or []
    tops = given.get("top_logprobs") or [None] * len(tokens)
    if len(tokens) != len(values) or any(value is None for value in values):
        tokens, values, tops = [], [], []  # what is not there for every token is no use
    return Answer(
        text=str(choice["text"]),
        prompt_tokens=usage.get("prompt_tokens"),
        num_tokens=int(usage.get("completion_tokens") or len(tokens)),
        tokens=tuple(map(str, tokens)),
        logprobs=tuple(
            {**(top or {}), token: float(value)} for token, value, top in zip(tokens, values, tops, strict=True)
        ),
    )
