"""Serve a model over OpenAI's HTTP API with OpenVINO GenAI's continuous batching.

    python server.py --model FILE --host 127.0.0.1 --port 8000 --scheduler '{}' --plugin '{}' --model-name tiny-llama

POST /v1/completions, /v1/chat/completions; GET /v1/models, /health, /version, /metrics. This process speaks HTTP and
writes each token as it comes; generator.py, its child, computes. Standard output is the log: `effective: {json}` has
the settings as resolved, and the block under `Model: LLM` is OpenVINO's own account of the model as compiled.
"""

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from pipeline.engine.embedded import openai_api
    from pipeline.engine.embedded.generator_process import (
        EngineFailureError,
        Generation,
        GeneratorProcess,
        RefusedError,
    )
else:  # run by path, this folder is on sys.path and the package is not
    import openai_api
    from generator_process import EngineFailureError, Generation, GeneratorProcess, RefusedError

log = logging.getLogger("server")

MAX_BODY_BYTES = 64 << 20
BACKLOG = 1024
"""Clients that may connect at the same moment."""

SHUTDOWN_S = 0.1
"""Time that open connections are given to end when the server is told to stop."""


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every failure with OpenAI's error object."""
    try:
        return await handler(request)
    except openai_api.RequestError as error:
        message, status, param = error.message, error.status, error.param
    except RefusedError as error:
        message, status, param = str(error), 400, None
    except EngineFailureError as error:
        message, status, param = str(error), 500, None
    except web.HTTPException as error:
        message, status, param = f"{request.method} {request.path}: {error.reason}", error.status, None
    return web.json_response(openai_api.error_object(message, status, param), status=status)


class Api:
    """The HTTP endpoints."""

    def __init__(self, engine: GeneratorProcess, model_name: str) -> None:
        self._engine, self._model_name = engine, model_name
        self._started = int(time.time())

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[errors_as_json], client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat_completions)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/version", self.version)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def health(self, _: web.Request) -> web.Response:
        """Answers while the server serves; it exits when the generator dies."""
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        """Version of OpenVINO GenAI."""
        return web.json_response({"version": self._engine.settings["openvino_genai"]})

    async def models(self, _: web.Request) -> web.Response:
        """The one model."""
        model = {"id": self._model_name, "object": "model", "created": self._started, "owned_by": "openvino"}
        model["max_model_len"] = self._engine.settings["max_model_len"]
        return web.json_response({"object": "list", "data": [model]})

    async def metrics(self, _: web.Request) -> web.Response:
        """Counters in Prometheus' text format, as of the last step; the generator is not asked."""
        engine = self._engine
        metrics = {
            "tpw_generation_tokens_total counter": engine.generation_tokens,
            "tpw_num_requests_running gauge": engine.num_running,
            "tpw_num_requests_waiting gauge": engine.num_waiting,
            "tpw_kv_cache_usage_ratio gauge": engine.kv_cache_use,
        }
        return web.Response(text="".join(f"# TYPE {kind}\n{kind.split()[0]} {metrics[kind]}\n" for kind in metrics))

    async def completions(self, http: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        return await self._answer(http, is_chat=False)

    async def chat_completions(self, http: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        return await self._answer(http, is_chat=True)

    async def _answer(self, http: web.Request, *, is_chat: bool) -> web.StreamResponse:
        request = openai_api.parse(await http.read(), self._model_name, is_chat=is_chat)
        async with self._engine.generation(request.generate) as generation:
            reply = openai_api.Reply(request, self._model_name, await generation.prompt_tokens)
            if request.stream:
                return await self._stream(http, generation, reply)
            text, finish_reason, logprobs = "", None, list[tuple[str, float]]()
            async for tokens in generation:
                reply.completion_tokens += tokens.num_tokens
                text, finish_reason = text + tokens.text, tokens.finish_reason
                logprobs += tokens.logprobs
            return web.json_response(reply.whole(text, finish_reason, logprobs))

    @staticmethod
    async def _stream(http: web.Request, generation: Generation, reply: openai_api.Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(http)
        opening = reply.first_chunk()  # waits for the first token, for clients take its time as that of the token
        try:
            async for tokens in generation:
                reply.completion_tokens += tokens.num_tokens
                end = reply.last_chunks(tokens.finish_reason) if tokens.finish_reason else b""
                await response.write(opening + reply.text_chunk(tokens.text) + end)
                opening = b""
        except EngineFailureError as error:
            await response.write(openai_api.event(openai_api.error_object(str(error), 500)) + openai_api.DONE)
        await response.write_eof()
        return response


def listen(host: str, port: int) -> socket.socket:
    """Bind the address; connections are taken only once the model is loaded.

    Raises:
        EngineFailureError: If the address is taken, or not ours to take.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise EngineFailureError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


async def stop_signal() -> None:
    """Return when the process is told to stop, and log by what."""
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
    log.info("stopping: %s", (await told.get()).name)


async def serve(args: argparse.Namespace) -> None:
    """Load, serve, and return when told to stop.

    Raises:
        EngineFailureError: If the address is taken, the model does not load, or the generator dies.
    """
    stopped = asyncio.create_task(stop_signal())
    listener = listen(args.host, args.port)
    engine = GeneratorProcess()
    try:
        log.info("loading %s", args.model)
        started = asyncio.create_task(engine.start(args.model, args.scheduler, args.plugin))
        await asyncio.wait({started, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return
        await started
        log.info("effective: %s", json.dumps(engine.settings, sort_keys=True))
        ended = asyncio.create_task(engine.run())
        runner = web.AppRunner(
            Api(engine, args.model_name).application(),
            access_log=None,
            handler_cancellation=True,  # a client that leaves must not keep its request running
            shutdown_timeout=SHUTDOWN_S,
        )
        await runner.setup()
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        log.info("ready: http://%s:%d/v1 serves %s", args.host, args.port, args.model_name)
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await runner.cleanup()
        if not stopped.done():
            raise EngineFailureError(await ended)
    finally:
        await engine.stop()


def main() -> None:
    """Serve; a failure is one line and exit status 1."""
    parser = argparse.ArgumentParser(description="OpenAI-compatible server on OpenVINO GenAI.")
    parser.add_argument("--model", required=True, help="GGUF file or OpenVINO folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--scheduler", type=json.loads, default={}, help="SchedulerConfig as JSON")
    parser.add_argument("--plugin", type=json.loads, default={}, help="CPU plugin properties as JSON")
    parser.add_argument("--model-name", default="tiny-llama")
    args = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    try:
        asyncio.run(serve(args))
    except EngineFailureError as error:
        log.error("error: %s", error)  # noqa: TRY400  # a message for the user, not a traceback
        sys.exit(1)


if __name__ == "__main__":
    main()
