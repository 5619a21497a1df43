"""The server's side of the generator process: starts it, sends it requests, hands out the tokens it makes."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

MAX_MESSAGE_BYTES = 64 << 20


class EngineFailureError(Exception):
    """The generator did not start, died, or gave a request up."""


class RefusedError(Exception):
    """The generator does not take a request, for a reason that lies in the request."""


class Tokens(NamedTuple):
    """What one step made of one request."""

    text: str
    num_tokens: int
    finish_reason: str | None
    logprobs: list[tuple[str, float]]


class Generation:
    """One request: `prompt_tokens` is known once the generator has accepted it; iterate for its output as it comes."""

    def __init__(self) -> None:
        self.prompt_tokens: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._made: asyncio.Queue[Tokens | EngineFailureError] = asyncio.Queue()

    def put(self, made: Tokens) -> None:
        """Hand over new tokens."""
        self._made.put_nowait(made)

    def fail(self, error: EngineFailureError) -> None:
        """Raise an error in whoever waits for this request."""
        if self.prompt_tokens.done():
            self._made.put_nowait(error)
        else:
            self.prompt_tokens.set_exception(error)

    async def __aiter__(self) -> AsyncIterator[Tokens]:
        """Tokens, up to and with those that carry a finish reason.

        Raises:
            EngineFailureError: If the generator dies, or gives the request up because the KV cache is full.
        """
        while True:
            made = await self._made.get()
            if isinstance(made, EngineFailureError):
                raise made
            yield made
            if made.finish_reason is not None:
                return


class GeneratorProcess:
    """generator.py as a child process.

    Attributes:
        settings: What it reports it resolved.
        generation_tokens: Output tokens it has made, those of cancelled requests included.
        kv_cache_use: Share of the KV cache in use at its last step, 0 to 1.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.generation_tokens = 0
        self.kv_cache_use = 0.0
        self._scheduled = 0
        self._numbers = itertools.count()
        self._running: dict[int, Generation] = {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def num_running(self) -> int:
        """Requests in its last step, unless they have ended since."""
        return min(self._scheduled, len(self._running))

    @property
    def num_waiting(self) -> int:
        """Requests that were not in its last step; one that runs may be left out of a step that has no room for it."""
        return len(self._running) - self.num_running

    async def start(self, model: str, scheduler: dict[str, Any], plugin: dict[str, Any]) -> None:
        """Start the child and wait until the model is loaded.

        Raises:
            EngineFailureError: If it does not load; the message says why.
        """
        ours, theirs = socket.socketpair()
        options = {"--socket": str(theirs.fileno()), "--model": model}
        options |= {"--scheduler": json.dumps(scheduler), "--plugin": json.dumps(plugin)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("generator.py")),
            *itertools.chain(*options.items()),
            pass_fds=(theirs.fileno(),),
            # At level 3 OpenVINO prints the properties of the compiled model, once, while it loads.
            env={"OPENVINO_LOG_LEVEL": "3", **os.environ},
        )
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES)
        first = await self._reader.readline()
        message: dict[str, Any] = json.loads(first) if first else {"failed": await self._ending()}
        if "failed" in message:
            raise EngineFailureError(message["failed"])
        self.settings = message["ready"]

    async def run(self) -> str:
        """Hand out what the child sends until it ends; returns how it ended."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                self._hand_out(json.loads(line))
        ending = await self._ending()
        for generation in self._running.values():
            generation.fail(EngineFailureError(ending))
        return ending

    def _hand_out(self, message: dict[str, Any]) -> None:
        self._scheduled = message.get("scheduled", self._scheduled)
        self.kv_cache_use = message.get("kv_cache_use", self.kv_cache_use)
        for number, text, num_tokens, finish_reason, *logprobs in message.get("tokens", ()):
            self.generation_tokens += num_tokens
            generation = self._running.get(number)
            if generation is None:  # its client has left; the generator learns of it in a moment
                continue
            if finish_reason == "no_room":
                generation.fail(EngineFailureError("the KV cache is full and the request was given up"))
            else:
                generation.put(Tokens(text, num_tokens, finish_reason, logprobs[0] if logprobs else []))
        generation = self._running.get(message["id"]) if "id" in message else None
        if generation is not None and not generation.prompt_tokens.done():  # done: its client has left while it waited
            if "refused" in message:
                generation.prompt_tokens.set_exception(RefusedError(message["refused"]))
            else:
                generation.prompt_tokens.set_result(message["prompt_tokens"])

    @contextlib.asynccontextmanager
    async def generation(self, request: dict[str, Any]) -> AsyncIterator[Generation]:
        """Have a request generated; leaving the block, for whatever reason, cancels what is left of it.

        Raises:
            RefusedError: If the generator does not take the request.
            EngineFailureError: If it dies.
        """
        number = next(self._numbers)
        generation = self._running[number] = Generation()
        self._send({"id": number, **request})
        try:
            await generation.prompt_tokens
            yield generation
        finally:
            del self._running[number]
            self._send({"cancel": number})

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _ending(self) -> str:
        status = await self._process.wait() if self._process else 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"the generator process {how}"

    async def stop(self) -> None:
        """End the child; it has no state worth a goodbye."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
