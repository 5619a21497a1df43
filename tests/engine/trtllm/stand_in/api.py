"""The routes of the stand-in, with the answers of tensorrt_llm/serve/openai_server.py."""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.engine.trtllm.stand_in.power import PowerPublisher
from tests.engine.trtllm.stand_in.requests import RefusedError, Reply, Request, error_object, parse
from tests.engine.trtllm.stand_in.scheduler import Scheduler, Sequence

MAX_BODY_BYTES = 64 << 20

DISCONNECT_POLL_S = 1.0
"""How often the server looks whether a client has left; until then its request goes on. Source: await_disconnected."""


class Api:
    """The HTTP routes of one engine."""

    def __init__(
        self, scheduler: Scheduler, args: Mapping[str, Any], model: str, version: str, power: PowerPublisher
    ) -> None:
        """The power is what /energy_metrics tells."""
        self._scheduler, self._args, self._model, self._version, self._power = scheduler, args, model, version, power
        self.refuses = self.is_unhealthy = False
        self._leaving: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """The routes of an engine's server."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/completions", lambda http: self._generate(http, is_chat=False))
        app.router.add_post("/v1/chat/completions", lambda http: self._generate(http, is_chat=True))
        for path, answer in {
            "/health": self._health, "/health_generate": self._health_generate, "/version": self._say_version,
            "/server_info": self._server_info, "/v1/models": self._models, "/metrics": self._iteration_stats,
            "/perf_metrics": self._perf_metrics, "/energy_metrics": self._energy_metrics,
        }.items():  # fmt: skip
            app.router.add_get(path, answer)
        if self._args.get("return_perf_metrics"):
            app.router.add_get("/prometheus/metrics", self._prometheus)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.is_unhealthy else 200)

    async def _health_generate(self, _: web.Request) -> web.Response:
        """Really generates a token."""
        if self.is_unhealthy or self.refuses:
            return web.Response(status=500, text="Generation health check failed")
        sequence = self._scheduler.submit(8, 1)
        await sequence.chunks.get()
        return web.Response(text="Generation health check OK")

    async def _say_version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self._version})

    @staticmethod
    async def _server_info(_: web.Request) -> web.Response:
        return web.json_response({"disaggregated_params": {}})

    async def _models(self, _: web.Request) -> web.Response:
        card = {"id": self._model, "object": "model", "created": int(time.time()), "owned_by": "tensorrt_llm"}
        return web.json_response({"object": "list", "data": [card]})

    async def _iteration_stats(self, _: web.Request) -> web.Response:
        """A list that reading empties; without `enable_iter_perf_stats` there is nothing in it."""
        stats = list(self._scheduler.iterations) if self._args.get("enable_iter_perf_stats") else []
        self._scheduler.iterations.clear()
        return web.json_response(stats)

    async def _perf_metrics(self, _: web.Request) -> web.Response:
        """The same for requests."""
        is_on = self._args.get("return_perf_metrics") and (self._args.get("perf_metrics_max_requests") or 0) > 0
        items = [_timings(sequence) for sequence in self._scheduler.finished] if is_on else []
        self._scheduler.finished.clear()
        return web.json_response(items)

    async def _energy_metrics(self, _: web.Request) -> web.Response:
        if not self._args.get("enable_energy_metrics"):
            return web.json_response({"error": "Energy monitoring is not available"}, status=503)
        return web.json_response({"total_energy_j": round(self._power.total_j(), 4), "query_time": time.perf_counter()})

    async def _prometheus(self, _: web.Request) -> web.Response:
        scheduler, labels = self._scheduler, f'{{engine_type="pytorch",model_name="{self._model}"}}'
        totals = scheduler.totals
        metrics: dict[str, float] = {
            "trtllm_request_success_total": totals["requests"],
            "trtllm_prompt_tokens_total": totals["prompt_tokens"],
            "trtllm_generation_tokens_total": totals["generation_tokens"],
            "trtllm_time_to_first_token_seconds_count": totals["requests"],
            "trtllm_time_to_first_token_seconds_sum": totals["ttft_s"],
            "trtllm_request_queue_time_seconds_count": totals["requests"],
            "trtllm_request_queue_time_seconds_sum": totals["queue_s"],
        }
        if self._args.get("enable_iter_perf_stats"):
            metrics |= {
                "trtllm_num_requests_running": len(scheduler.running),
                "trtllm_num_requests_waiting": len(scheduler.waiting),
                "trtllm_kv_cache_utilization": scheduler.kv_use,
            }
        return web.Response(text="".join(f"{name}{labels} {value}\n" for name, value in metrics.items()))

    async def _generate(self, http: web.Request, *, is_chat: bool) -> web.StreamResponse:
        if self.is_unhealthy:
            await asyncio.Event().wait()
        if self.refuses:
            return web.json_response(error_object("told to refuse"), status=400)
        try:
            request = parse(await http.read(), is_chat=is_chat, settings=self._scheduler.settings)
        except RefusedError as refused:
            return web.json_response(refused.body, status=400)
        sequence = self._scheduler.submit(request.prompt_tokens, request.output_tokens)
        try:
            return await self._answer(http, request, sequence)
        except (asyncio.CancelledError, ConnectionError):
            self._leaving.add(leaving := asyncio.get_running_loop().create_task(_abort(sequence)))
            leaving.add_done_callback(self._leaving.discard)
            raise

    @staticmethod
    async def _answer(http: web.Request, request: Request, sequence: Sequence) -> web.StreamResponse:
        reply, num_tokens = Reply(request, sequence.number), 0
        if not request.stream:
            while num_tokens < request.output_tokens:
                num_tokens = await sequence.chunks.get()
            return web.json_response(reply.whole(num_tokens))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        opening = reply.opening()
        while num_tokens < request.output_tokens:
            before, num_tokens = num_tokens, await sequence.chunks.get()
            is_last = num_tokens == request.output_tokens
            text = opening + reply.chunk(num_tokens - before, num_tokens, is_last=is_last)
            await response.write(text + reply.closing(num_tokens) if is_last else text)
            opening = b""
        await response.write_eof()
        return response


async def _abort(sequence: Sequence) -> None:
    """Drop a request whose client has left, when the server gets to know."""
    await asyncio.sleep(DISCONNECT_POLL_S)
    sequence.is_aborted = True


def _timings(sequence: Sequence) -> dict[str, Any]:
    times_s = sequence.times_s
    names = ("arrival_time", "first_scheduled_time", "first_token_time", "last_token_time")
    timing = {"server_arrival_time": times_s["arrival_time"], **{name: times_s[name] for name in names},
              "server_first_token_time": times_s["first_token_time"]}  # fmt: skip
    blocks = dict.fromkeys(("num_total_allocated_blocks", "num_new_allocated_blocks", "num_reused_blocks",
                            "num_missed_blocks"), 0)  # fmt: skip
    return {
        "request_id": sequence.number,
        "perf_metrics": {
            "first_iter": sequence.iterations[0], "last_iter": sequence.iterations[-1], "timing_metrics": timing,
            "kv_cache_metrics": blocks,
        },
    }  # fmt: skip


def describe_process() -> str:
    """What uvicorn prints as it starts."""
    return f"INFO:     Started server process [{os.getpid()}]"
