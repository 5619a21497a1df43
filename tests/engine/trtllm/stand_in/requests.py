"""OpenAI's requests and answers as tensorrt_llm/serve/openai_protocol.py and postprocess_handlers.py have them."""

import json
import time
from dataclasses import dataclass
from typing import Any

from tests.engine.trtllm.stand_in.settings import Settings

COMMON_FIELDS = frozenset({
    "add_special_tokens", "best_of", "conversation_params", "disaggregated_params", "early_stopping", "echo",
    "frequency_penalty", "ignore_eos", "include_stop_str_in_output", "length_penalty", "logit_bias", "logprobs",
    "lora_request", "max_tokens", "min_p", "min_tokens", "model", "n", "presence_penalty", "priority",
    "prompt_ignore_length", "repetition_penalty", "response_format", "seed", "skip_special_tokens",
    "spaces_between_special_tokens", "stop", "stop_token_ids", "stream", "stream_options", "temperature",
    "thinking_token_budget", "top_k", "top_p", "top_p_min", "truncate_prompt_tokens", "use_beam_search", "user",
})  # fmt: skip
COMPLETION_FIELDS = COMMON_FIELDS | {"detokenize", "prompt", "return_context_logits", "suffix"}
CHAT_FIELDS = COMMON_FIELDS | {
    "add_generation_prompt", "chat_template", "chat_template_kwargs", "documents", "max_completion_tokens", "messages",
    "parallel_tool_calls", "prompt_token_ids", "reasoning_effort", "tool_choice", "tools", "top_logprobs",
}  # fmt: skip
"""Fields of CompletionRequest and ChatCompletionRequest, which forbid all others."""


class RefusedError(Exception):
    """A request that is answered with status 400 and this body."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body))
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked request: how much to read and to write, and how to answer."""

    model: str
    is_chat: bool
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    stream: bool
    include_usage: bool
    continuous_usage: bool


def parse(text: bytes, *, is_chat: bool, settings: Settings) -> Request:
    """Check a body.

    Raises:
        RefusedError: If it is not a request, or longer than this engine takes.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise RefusedError({"error": f"[{{'type': 'json_invalid', 'msg': 'JSON decode error: {error}'}}]"}) from error
    known, needed = (CHAT_FIELDS, "messages") if is_chat else (COMPLETION_FIELDS, "prompt")
    for name in ("model", needed):
        if name not in body:
            raise _invalid("missing", name, "Field required")
    for name in body:
        if name not in known:
            raise _invalid("extra_forbidden", name, "Extra inputs are not permitted")
    stream, options = bool(body.get("stream")), body.get("stream_options")
    if options and not stream:
        raise _invalid("value_error", "stream_options", "Stream options can only be defined when stream is true.")
    prompt_tokens = _num_prompt_tokens(body, is_chat=is_chat)
    asked = body.get("max_tokens", body.get("max_completion_tokens"))
    output_tokens = settings.max_seq_len - prompt_tokens if asked is None else asked
    if prompt_tokens + output_tokens > settings.max_seq_len or output_tokens < 1:
        total = f"prompt ({prompt_tokens}) + max_tokens ({output_tokens})"
        raise RefusedError(error_object(f"{total} exceed max_seq_len={settings.max_seq_len}"))
    if prompt_tokens > settings.max_num_tokens and not settings.has_chunked_prefill:
        message = f"prompt length ({prompt_tokens}) exceeds max_num_tokens={settings.max_num_tokens}"
        raise RefusedError(error_object(message))
    is_cut = bool(body.get("ignore_eos")) or asked is None or asked <= (body.get("min_tokens") or 0)
    return Request(
        model=body["model"],
        is_chat=is_chat,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens if is_cut else max(1, body.get("min_tokens") or 0, output_tokens // 2),
        finish_reason="length" if is_cut else "stop",
        stream=stream,
        include_usage=options is not None and options.get("include_usage", True),
        continuous_usage=options is not None and bool(options.get("continuous_usage_stats")),
    )


def _num_prompt_tokens(body: dict[str, Any], *, is_chat: bool) -> int:
    """Tokens of a prompt; a word is one."""
    if is_chat:
        return sum(len(str(message.get("content")).split()) + 4 for message in body["messages"])
    prompt = body["prompt"]
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        (prompt,) = prompt
    if isinstance(prompt, str):
        return max(1, len(prompt.split()))
    if not isinstance(prompt, list) or not prompt or not all(type(token) is int for token in prompt):
        raise _invalid("list_type", "prompt", "Input should be a valid list or string")
    return len(prompt)


def _invalid(kind: str, name: str, message: str) -> RefusedError:
    """What FastAPI's validation gives, put into the server's own form."""
    return RefusedError({"error": str([{"type": kind, "loc": ("body", name), "msg": message}])})


def error_object(message: str) -> dict[str, Any]:
    """How the server itself says no."""
    return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}


class Reply:
    """The JSON that answers one request."""

    def __init__(self, request: Request, number: int) -> None:
        """The same head for all of it."""
        self._request = request
        kind = "chat.completion" if request.is_chat else "text_completion"
        self._head = {"id": f"{'chatcmpl' if request.is_chat else 'cmpl'}-{number}",
                      "object": kind + ".chunk" * (request.is_chat and request.stream),
                      "created": int(time.time()), "model": request.model}  # fmt: skip

    def usage(self, num_tokens: int) -> dict[str, Any]:
        """Tokens so far."""
        prompt = self._request.prompt_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + num_tokens, "completion_tokens": num_tokens,
                "prompt_tokens_details": {"cached_tokens": 0}}  # fmt: skip

    def opening(self) -> bytes:
        """A chat opens with the role, and with a blank that the real one has too; a completion with nothing."""
        if not self._request.is_chat:
            return b""
        choice = {"index": 0, "delta": {"role": "assistant"}}
        usage = {"usage": self.usage(0)} if self._request.continuous_usage else {}
        return b"data: " + json.dumps({**self._head, "choices": [choice], **usage}).encode() + b" \n\n"

    def chunk(self, num_new: int, num_tokens: int, *, is_last: bool) -> bytes:
        """What one step brought, `num_tokens` in all so far."""
        text, finish = " t" * num_new, self._request.finish_reason if is_last else None
        usage = self.usage(num_tokens) if self._request.continuous_usage and self._request.include_usage else None
        if self._request.is_chat:  # leaves out what is null, as a completion does not
            choice = {"index": 0, "delta": {"content": text, "reasoning_content": ""},
                      **({"finish_reason": finish} if finish else {})}  # fmt: skip
            return _event({**self._head, "choices": [choice], **({"usage": usage} if usage else {})})
        choice = {"index": 0, "text": text, "token_ids": None, "logprobs": None, "finish_reason": finish,
                  "stop_reason": None, "avg_decoded_tokens_per_iter": 1.0}  # fmt: skip
        return _event({**self._head, "choices": [choice], "usage": usage})

    def closing(self, num_tokens: int) -> bytes:
        """The usage if asked for, and the end of the stream."""
        usage = _event({**self._head, "choices": [], "usage": self.usage(num_tokens)})
        return (usage if self._request.include_usage else b"") + b"data: [DONE]\n\n"

    def whole(self, num_tokens: int) -> dict[str, Any]:
        """The answer without streaming."""
        text = " t" * num_tokens
        content = {"message": {"role": "assistant", "content": text}} if self._request.is_chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": self._request.finish_reason,
                  "stop_reason": None, "disaggregated_params": None}  # fmt: skip
        return {**self._head, "choices": [choice], "usage": self.usage(num_tokens), "prompt_token_ids": None}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
