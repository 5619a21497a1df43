"""Generate tokens: one ContinuousBatchingPipeline in a process of its own, driven over a socket by server.py.

`step()` of the pipeline keeps Python's interpreter lock while it computes. In one process with an event loop it would
hold back that loop's writes, and tokens would reach the client in bunches with the wrong times.

Messages are lines of JSON. First one line out: {"ready": settings} or {"failed": why}. Then in:
    {"id", "prompt": text or token ids, or else "messages", and the sampling fields of openai_api.py}
    {"cancel": id}
and out:
    {"id", "prompt_tokens"} when accepted, {"id", "refused": why} when not
    {"tokens": [[id, text, number of tokens, finish reason or null], ...], "scheduled": requests in the step,
     "kv_cache_use": share of the KV cache in use, 0 to 1} after each step; where log-probabilities are asked for, they
    follow the finish reason as [[text of the token, its log-probability], ...]
"""

import argparse
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino_genai
from openvino_genai import openvino

if TYPE_CHECKING:
    from pipeline.engine.embedded.generator_settings import (
        SettingsError,
        context_length_tokens,
        last_line,
        scheduler_config,
    )
else:  # run by path in the engine's environment, which does not have our package
    from generator_settings import SettingsError, context_length_tokens, last_line, scheduler_config

DEVICE = "CPU"
MAX_TOKENS_PER_CHARACTER = 4
"""A UTF-8 character has at most four bytes, so text is never held back for more tokens than that."""

NO_ROOM = "no_room"
"""Finish reason of a request that the engine gave up because the KV cache was full."""

_FINISHED = openvino_genai.GenerationStatus.FINISHED
_RUNNING = openvino_genai.GenerationStatus.RUNNING
_STOP = openvino_genai.GenerationFinishReason.STOP


@dataclass
class Stream:
    """One running request.

    Attributes:
        handle: The pipeline's handle; the pipeline drops a request whose handle is gone.
        input_ids: The prompt.
        config: How to generate.
        shown: Tokens whose text was sent last; kept as context, for the text of a token may depend on the one before.
        pending: Tokens whose text was not sent yet.
        logprobs: Tokens and their log-probabilities that were not sent yet; None where they are not asked for.
    """

    handle: Any
    input_ids: Any
    config: Any
    shown: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    logprobs: list[tuple[int, float]] | None = None


class Generator:
    """Requests in, tokens out, one pipeline step at a time."""

    def __init__(self, model: Path, scheduler: dict[str, Any], plugin: dict[str, Any]) -> None:
        """Load the model.

        Raises:
            SettingsError: If a setting is unknown or impossible, or the model does not load.
        """
        self.config = scheduler_config(scheduler)
        self.max_model_len = context_length_tokens(model)
        try:
            self.pipeline = openvino_genai.ContinuousBatchingPipeline(str(model), self.config, DEVICE, plugin)
        except (RuntimeError, TypeError) as error:
            raise SettingsError(f"cannot load {model}: {last_line(error)}") from error
        self.tokenizer = self.pipeline.get_tokenizer()
        self.vocab_size = len(self.tokenizer.get_vocab())
        self.plugin = plugin
        self.streams: dict[int, Stream] = {}
        self.has_cancelled = False

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do, a cancelled request to clear away included."""
        return bool(self.streams) or self.pipeline.has_non_finished_requests()

    def settings(self) -> dict[str, Any]:
        """What was resolved: versions, every scheduler setting with its value, and the plugin settings asked for."""
        names = [n for n in dir(self.config) if not n.startswith("_")]
        values = {n: getattr(self.config, n) for n in names}
        return {
            "openvino_genai": openvino_genai.__version__,
            "device": DEVICE,
            "max_model_len": self.max_model_len,
            "scheduler": {n: v for n, v in values.items() if isinstance(v, bool | int | float | str)},
            "plugin": self.plugin,
        }

    def add(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hand a request to the pipeline; the answer says whether it was accepted."""
        number = request["id"]
        try:
            input_ids = self.input_ids(request)
            prompt_tokens = int(input_ids.shape[1])
            max_tokens = self.max_tokens(prompt_tokens, request["max_tokens"])
            config = openvino_genai.GenerationConfig(
                max_new_tokens=max_tokens,
                min_new_tokens=request["min_tokens"],
                ignore_eos=request["ignore_eos"],
                logprobs=int(request["logprobs"]),
            )
            if request["temperature"] > 0:
                config.do_sample = True
                config.temperature = request["temperature"]
                config.top_p = request["top_p"]
                config.rng_seed = secrets.randbits(31) if request["seed"] is None else request["seed"]
            handle = self.pipeline.add_request(number, input_ids, config)
        except (RuntimeError, TypeError, ValueError) as error:
            return {"id": number, "refused": last_line(error)}
        self.streams[number] = Stream(handle, input_ids, config, logprobs=[] if request["logprobs"] else None)
        return {"id": number, "prompt_tokens": prompt_tokens}

    def input_ids(self, request: dict[str, Any]) -> Any:
        """Token ids of a prompt, shape (1, tokens).

        Raises:
            ValueError: If a token id is outside the vocabulary.
        """
        if "messages" in request:
            text = self.tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True)
            return self.tokenizer.encode(text, add_special_tokens=False).input_ids
        prompt = request["prompt"]
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt).input_ids
        for token in prompt:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"token id {token} is outside the vocabulary of {self.vocab_size} tokens")
        return openvino.Tensor(np.array([prompt], dtype=np.int64))

    def max_tokens(self, prompt_tokens: int, asked: int | None) -> int:
        """Output tokens to allow; all that the context has left if none are asked for.

        Raises:
            ValueError: If the request does not fit the context, or its prompt not one batch.
        """
        if prompt_tokens == 0:
            raise ValueError("the prompt is empty")
        limit = self.config.max_num_batched_tokens
        if not self.config.dynamic_split_fuse and prompt_tokens > limit:
            # The pipeline would abort on it, and every other request with it.
            raise ValueError(
                f"the prompt has {prompt_tokens} tokens, but without chunked prefill one batch takes {limit}"
            )
        max_tokens = max(1, self.max_model_len - prompt_tokens) if asked is None else asked
        if prompt_tokens + max_tokens > self.max_model_len:
            raise ValueError(
                f"{prompt_tokens} prompt tokens and {max_tokens} output tokens exceed "
                f"the maximum context length of {self.max_model_len} tokens"
            )
        return max_tokens

    def cancel(self, number: int) -> None:
        """Drop a request; unknown or finished ones are left alone."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            stream.handle.cancel()
            self.has_cancelled = True

    def step(self) -> list[tuple[Any, ...]]:
        """Run one step; what it made of each request: id, text, number of tokens, finish reason if finished."""
        follows_cancel, self.has_cancelled = self.has_cancelled, False
        self.pipeline.step()
        made = []
        for number, stream in self.streams.items():
            count, reason = read(stream)
            if reason == NO_ROOM and follows_cancel and not (stream.shown or stream.pending):
                # Where every running request was cancelled, the pipeline finds nothing to run, takes that for a full
                # KV cache and gives up those that wait as well. They have lost nothing: submit them again.
                stream.handle = self.pipeline.add_request(number, stream.input_ids, stream.config)
            elif count or reason:
                made.append((number, stream, count, reason))
        rows = [row for _, stream, _, _ in made for row in (stream.shown, stream.shown + stream.pending)]
        texts = iter(self.tokenizer.decode(rows) if rows else [])
        results = []
        for number, stream, count, reason in made:
            text = new_text(stream, next(texts), next(texts), is_last=reason is not None)
            results.append((number, text, count, reason, *self.logprobs(stream)))
            if reason is not None:
                del self.streams[number]
        return results

    def logprobs(self, stream: Stream) -> list[list[tuple[str, float]]]:
        """The new tokens' texts and log-probabilities as one item; none where they are not asked for."""
        if stream.logprobs is None:
            return []
        new, stream.logprobs = stream.logprobs, []
        texts = self.tokenizer.decode([[token] for token, _ in new]) if new else []
        return [list(zip(texts, (value for _, value in new), strict=True))]


def read(stream: Stream) -> tuple[int, str | None]:
    """Take a request's new tokens; their number, and the finish reason if it finished."""
    count, last = 0, None
    while stream.handle.can_read():
        for output in stream.handle.read().values():  # none when the request was given up
            stream.pending += output.generated_ids
            if stream.logprobs is not None:
                stream.logprobs += zip(output.generated_ids, output.generated_log_probs, strict=True)
            count += len(output.generated_ids)
            last = output.finish_reason
    status = stream.handle.get_status()
    if status == _RUNNING:
        return count, None
    if status != _FINISHED:
        return count, NO_ROOM
    return count, "stop" if last == _STOP else "length"


def new_text(stream: Stream, before: str, after: str, *, is_last: bool) -> str:
    """Text that the pending tokens add; empty while they end amid a character."""
    amid_character = after == before or after.endswith("\N{REPLACEMENT CHARACTER}")
    if amid_character and not is_last and len(stream.pending) < MAX_TOKENS_PER_CHARACTER:
        return ""
    stream.shown, stream.pending = stream.pending, []
    return after[len(before) :]


class Channel:
    """Lines of JSON over a connected socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._partial = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, *, wait: bool) -> list[dict[str, Any]] | None:
        """Messages that have arrived, none without `wait` if there are none; None when the other side is gone."""
        if not select.select([self._socket], [], [], None if wait else 0)[0]:
            return []
        data = self._socket.recv(1 << 20)
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None


def run(channel: Channel, generator: Generator) -> None:
    """Take what has arrived, then one step, until the server is gone."""
    while (arrived := channel.receive(wait=not generator.busy)) is not None:
        for message in arrived:
            if "cancel" in message:
                generator.cancel(message["cancel"])
            else:
                channel.send(generator.add(message))
        if generator.busy and (results := generator.step()):
            metrics = generator.pipeline.get_metrics()  # of the step; 4 us
            use = metrics.cache_usage / 100
            channel.send({"tokens": results, "scheduled": metrics.scheduled_requests, "kv_cache_use": use})


def main() -> None:
    """Load, report, then generate until the server is gone."""
    parser = argparse.ArgumentParser(description="Generate tokens for server.py.")
    parser.add_argument("--socket", type=int, required=True, help="inherited file descriptor")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scheduler", type=json.loads, required=True)
    parser.add_argument("--plugin", type=json.loads, required=True)
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the server decides what they mean
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(args.socket)
    try:
        generator = Generator(args.model, args.scheduler, args.plugin)
    except SettingsError as error:
        channel.send({"failed": str(error)})
        sys.exit(1)
    with contextlib.suppress(ConnectionError):  # the server is gone
        channel.send({"ready": generator.settings()})
        run(channel, generator)
    os._exit(0)  # skip the pipeline's destructor, which reports requests cut short as leaks


if __name__ == "__main__":
    main()
