"""OpenAI's requests and answers: checks the one, shapes the other. Nothing here knows about HTTP or about OpenVINO.

Fields that are not known are ignored, as vLLM does; known ones that would change the answer but are not implemented
are refused. A stream is chunks of text, a chunk with the finish reason, a usage chunk if asked for, `[DONE]`.
"""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COMPLETIONS_MAX_TOKENS = 16
"""Output tokens of a completion that asks for no number. Source: OpenAI's API reference."""

NOT_IMPLEMENTED: dict[str, object] = {
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "logit_bias": {},
    "min_p": 0,
    "n": 1,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "response_format": {"type": "text"},
    "stop": [],
    "stop_token_ids": [],
    "suffix": "",
    "tools": [],
    "top_k": -1,
}
"""Fields that are refused, unless they have this value, which changes nothing, or are null."""


MAX_LOGPROBS = 1
"""Of a token."""

DONE = b"data: [DONE]\n\n"
"""Ends every stream."""


class RequestError(Exception):
    """The client's mistake, answered with `status` and OpenAI's error object."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.status = message, param, status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked request.

    Attributes:
        generate: What the generator is sent.
        continuous_usage: Running usage in every chunk; as in vLLM, an extension of `include_usage`.
    """

    generate: dict[str, Any]
    is_chat: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool


def parse(body: bytes, model_name: str, *, is_chat: bool) -> Request:
    """Check the body of a request.

    Raises:
        RequestError: If it is not JSON, or a field is missing, of the wrong type, out of range or not implemented.
    """
    try:
        values = json.loads(body)
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RequestError("the body must be a JSON object")
    if (name := _field(values, "model", str, model_name)) != model_name:
        raise RequestError(f"the model '{name}' does not exist; this server has '{model_name}'", "model", 404)
    for field, harmless in NOT_IMPLEMENTED.items():
        if values.get(field) is not None and values[field] != harmless:
            raise RequestError(f"'{field}' is not implemented by this server; leave it out", field)
    stream = _field(values, "stream", bool, default=False)
    options = _field(values, "stream_options", dict, default={})
    if options and not stream:
        raise RequestError("'stream_options' is only allowed with stream = true", "stream_options")
    include_usage = _field(options, "include_usage", bool, default=False)
    return Request(
        generate=_parse_prompt(values, is_chat=is_chat)
        | _parse_sampling(values, is_chat=is_chat)
        | {"logprobs": _parse_logprobs(values, is_whole_completion=not (is_chat or stream))},
        is_chat=is_chat,
        stream=stream,
        include_usage=include_usage,
        continuous_usage=include_usage and _field(options, "continuous_usage_stats", bool, default=False),
    )


def _field(values: Mapping[str, Any], name: str, kind: type, default: Any, *, minimum: float | None = None) -> Any:
    """A field of the given type, or the default where it is absent or null.

    Raises:
        RequestError: If it has another type, or is less than `minimum`.
    """
    value = values.get(name)
    if value is None:
        return default
    kinds: tuple[Any, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(f"'{name}' must be of type {kind.__name__}, not {value!r:.80}", name)
    if minimum is not None and not value >= minimum:
        raise RequestError(f"'{name}' must be at least {minimum}, not {value}", name)
    return value


def _parse_sampling(values: dict[str, Any], *, is_chat: bool) -> dict[str, Any]:
    """How many tokens, and how each is chosen; temperature 0 is greedy.

    Raises:
        RequestError: If a field has the wrong type or is out of range.
    """
    max_tokens = _field(values, "max_tokens", int, default=None if is_chat else COMPLETIONS_MAX_TOKENS, minimum=1)
    max_tokens = _field(values, "max_completion_tokens", int, default=max_tokens, minimum=1)
    min_tokens = _field(values, "min_tokens", int, default=0, minimum=0)
    if max_tokens is not None and min_tokens > max_tokens:
        raise RequestError(f"'min_tokens' {min_tokens} exceeds 'max_tokens' {max_tokens}", "min_tokens")
    top_p = _field(values, "top_p", float, default=1.0)
    if not 0 < top_p <= 1:
        raise RequestError(f"'top_p' must be above 0 and at most 1, not {top_p}", "top_p")
    return {
        "max_tokens": max_tokens,
        "min_tokens": min_tokens,
        "ignore_eos": _field(values, "ignore_eos", bool, default=False),
        "temperature": _field(values, "temperature", float, default=1.0, minimum=0),
        "top_p": top_p,
        "seed": _field(values, "seed", int, default=None, minimum=0),
    }


def _parse_logprobs(values: dict[str, Any], *, is_whole_completion: bool) -> bool:
    """Whether log-probabilities are asked for; OpenVINO GenAI gives that of the chosen token, and no others.

    Raises:
        RequestError: If they are asked for in a chat or a stream, or more than one for each token.
    """
    asked = values.get("logprobs")
    if asked is None or asked is False:
        return False
    if not is_whole_completion:
        raise RequestError("'logprobs' is only implemented for completions that are not streamed", "logprobs")
    if _field(values, "logprobs", int, default=0, minimum=0) > MAX_LOGPROBS:
        raise RequestError(f"'logprobs' is at most {MAX_LOGPROBS}: that of the token itself", "logprobs")
    return True


def _parse_prompt(values: dict[str, Any], *, is_chat: bool) -> dict[str, Any]:
    """The prompt, a text or a list of token ids (a list of one such prompt counts as that prompt), or the messages.

    Raises:
        RequestError: If it is anything else.
    """
    if is_chat:
        return {"messages": _parse_messages(values.get("messages"))}
    prompt = values.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        (prompt,) = prompt
    is_token_ids = isinstance(prompt, list) and all(type(token) is int for token in prompt)
    if not isinstance(prompt, str) and not is_token_ids:
        raise RequestError("'prompt' must be one text or one list of token ids", "prompt")
    return {"prompt": prompt}


def _parse_messages(messages: object) -> list[dict[str, str]]:
    """Chat messages with their content as plain text.

    Raises:
        RequestError: If there is none, or one has no role, or content that is not text.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError("'messages' must be a list of at least one message", "messages")
    plain = []
    for message in messages:
        match message:
            case {"role": str(role), "content": str(content)}:
                plain.append({"role": role, "content": content})
            case {"role": str(role), "content": [*parts]}:
                plain.append({"role": role, "content": "".join(_parse_part(part) for part in parts)})
            case _:
                raise RequestError("each of 'messages' must have a role and a content", "messages")
    return plain


def _parse_part(part: object) -> str:
    """The text of one part of a message's content.

    Raises:
        RequestError: If it is not text.
    """
    match part:
        case {"type": "text", "text": str(text)}:
            return text
    raise RequestError("the parts of a message's content must be of type text", "messages")


class Reply:
    """The JSON objects that answer one request, in OpenAI's shapes."""

    def __init__(self, request: Request, model_name: str, prompt_tokens: int) -> None:
        self._request = request
        prefix, kind = ("chatcmpl", "chat.completion") if request.is_chat else ("cmpl", "text_completion")
        self._head = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model_name,
        }
        self._chunk_head = self._head | ({"object": "chat.completion.chunk"} if request.is_chat else {})
        self._prompt_tokens = prompt_tokens
        self.completion_tokens = 0

    def usage(self) -> dict[str, int]:
        """Tokens so far."""
        total = self._prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }

    def whole(self, text: str, finish_reason: str | None, logprobs: Sequence[tuple[str, float]] = ()) -> dict[str, Any]:
        """The answer without streaming; `logprobs` are tokens' texts and log-probabilities, where asked for."""
        content = {"message": {"role": "assistant", "content": text}} if self._request.is_chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": self._logprobs(logprobs), "finish_reason": finish_reason}
        return {**self._head, "choices": [choice], "usage": self.usage()}

    def _logprobs(self, logprobs: Sequence[tuple[str, float]]) -> dict[str, Any] | None:
        """OpenAI's object; a greedy token is the likeliest, of a drawn one nobody knows which is."""
        if not self._request.generate["logprobs"]:
            return None
        is_greedy = self._request.generate["temperature"] == 0
        return {
            "tokens": [token for token, _ in logprobs],
            "token_logprobs": [value for _, value in logprobs],
            "top_logprobs": [{token: value} for token, value in logprobs] if is_greedy else None,
            "text_offset": None,
        }

    def first_chunk(self) -> bytes:
        """A chat opens with the role; a completion with nothing."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None) if self._request.is_chat else b""

    def text_chunk(self, text: str) -> bytes:
        """One step's text."""
        return self._chunk({"delta": {"content": text}} if self._request.is_chat else {"text": text}, None)

    def last_chunks(self, finish_reason: str) -> bytes:
        """The finish reason, the usage if asked for, and the end of the stream."""
        end = self._chunk({"delta": {}} if self._request.is_chat else {"text": ""}, finish_reason)
        if self._request.include_usage:
            end += event({**self._chunk_head, "choices": [], "usage": self.usage()})
        return end + DONE

    def _chunk(self, content: dict[str, Any], finish_reason: str | None) -> bytes:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        chunk: dict[str, Any] = {**self._chunk_head, "choices": [choice]}
        if self._request.include_usage:
            chunk["usage"] = self.usage() if self._request.continuous_usage else None
        return event(chunk)


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def error_object(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}
