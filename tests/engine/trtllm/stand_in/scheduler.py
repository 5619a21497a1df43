"""Continuous batching without a model: one timer a step, and every sequence of the batch gets its tokens."""

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.engine.trtllm.stand_in.behaviour import Behaviour, Fault
from tests.engine.trtllm.stand_in.power import PowerPublisher
from tests.engine.trtllm.stand_in.settings import Settings

COMPILE_LINES = 20


@dataclass(eq=False, kw_only=True)
class Sequence:
    """One request.

    Attributes:
        chunks: How many tokens there are now, whenever a client is to hear of it.
        times_s: Monotonic times of arrival, scheduling, first and last token.
        iterations: First and last step that it was in.
    """

    number: int
    prompt_tokens: int
    output_tokens: int
    chunks: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)
    num_prefilled: int = 0
    num_generated: int = 0
    num_iterations: int = 0
    times_s: dict[str, float] = field(default_factory=dict)
    iterations: list[int] = field(default_factory=list)
    is_aborted: bool = False

    @property
    def held_tokens(self) -> int:
        """Tokens of the KV cache that it needs until its end."""
        return self.prompt_tokens + self.output_tokens


class Scheduler:
    """The requests of one engine; `run` steps while there are any.

    Attributes:
        iterations: Statistics of the last steps, as /metrics gives them.
        finished: Requests that are done, as /perf_metrics gives them.
        totals: Requests, prompt and output tokens of all of those, seconds until their first token, and in the queue.
    """

    def __init__(
        self, settings: Settings, args: Mapping[str, Any], behaviour: Behaviour, power: PowerPublisher
    ) -> None:
        """Nothing runs before `run`."""
        self.settings = settings
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.iterations: deque[dict[str, Any]] = deque(maxlen=args.get("iter_stats_max_iterations") or 1000)
        self.finished: deque[Sequence] = deque(maxlen=max(1, args.get("perf_metrics_max_requests") or 1))
        self.totals = {"requests": 0.0, "prompt_tokens": 0.0, "generation_tokens": 0.0, "ttft_s": 0.0, "queue_s": 0.0}
        self._power = power
        self._numbers = itertools.count(1)
        self._wanted = asyncio.Event()
        self._num_steps = self._num_tokens = 0
        self._crash_after_tokens = behaviour.crash_after_tokens if behaviour.has(Fault.CRASH, args) else None
        self._slow_s = behaviour.slow_step_s if behaviour.has(Fault.SLOW, args) else 0.0
        self._num_compile_lines = COMPILE_LINES if behaviour.has(Fault.COMPILE, args) else 0

    def submit(self, prompt_tokens: int, output_tokens: int) -> Sequence:
        """Queue a request."""
        sequence = Sequence(number=next(self._numbers), prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        sequence.times_s["arrival_time"] = time.monotonic()
        self.waiting.append(sequence)
        self._wanted.set()
        return sequence

    @property
    def kv_use(self) -> float:
        """Share of the KV cache in use."""
        return sum(sequence.held_tokens for sequence in self.running) / self.settings.kv_tokens

    async def run(self) -> None:
        """Step for ever."""
        while True:
            if not self._schedule():
                self._power.set_w(0.0)
                self._wanted.clear()
                await self._wanted.wait()
                continue
            num_sequences, began_s = len(self.running), time.monotonic()
            num_context, context_tokens = self._prefill()
            self._power.set_w(self.settings.active_w(num_sequences))
            step_s = self.settings.step_s(num_sequences, context_tokens) + self._slow_s
            await asyncio.sleep(step_s)
            num_completed = self._generate()
            self._note(began_s, num_sequences, num_context, context_tokens, num_completed)

    def _schedule(self) -> bool:
        """Take in what fits, as GUARANTEED_NO_EVICT does; whether anything is running."""
        for queue in (self.waiting, self.running):
            for sequence in [sequence for sequence in queue if sequence.is_aborted]:
                queue.remove(sequence)
        held = sum(sequence.held_tokens for sequence in self.running)
        while self.waiting and len(self.running) < self.settings.max_requests:
            held += self.waiting[0].held_tokens
            if held > self.settings.kv_tokens:
                break
            self.running.append(self.waiting.popleft())
            self.running[-1].times_s["first_scheduled_time"] = time.monotonic()
        return bool(self.running)

    def _prefill(self) -> tuple[int, int]:
        """Read prompts, up to the limit of a step; how many, and their tokens."""
        left = self.settings.max_num_tokens - sum(s.num_prefilled == s.prompt_tokens for s in self.running)
        num_context = total = 0
        for sequence in self.running:
            wanted = sequence.prompt_tokens - sequence.num_prefilled
            fits = min(wanted, left) if self.settings.has_chunked_prefill else wanted if wanted <= left else 0
            if fits > 0:
                sequence.num_prefilled += fits
                left, total, num_context = left - fits, total + fits, num_context + 1
        return num_context, total

    def _generate(self) -> int:
        """Give every sequence that has read its prompt its next tokens; how many are done with that."""
        self._num_steps += 1
        if self._num_compile_lines and self.running:
            self._num_compile_lines -= 1
            print(f"[TensorRT-LLM][WARNING] Possible JIT Cache Missing: fmha_{self._num_steps}", flush=True)
        now_s, num_completed = time.monotonic(), 0
        for sequence in [sequence for sequence in self.running if sequence.num_prefilled == sequence.prompt_tokens]:
            before = sequence.num_generated
            new = min(
                1 + (sequence.num_iterations * 7 % 10 < 6) * self.settings.draft_len, sequence.output_tokens - before
            )
            sequence.num_generated += new
            sequence.num_iterations += 1
            self._num_tokens += new
            sequence.times_s.setdefault("first_token_time", now_s)
            sequence.times_s["last_token_time"] = now_s
            sequence.iterations = [*sequence.iterations[:1], self._num_steps]
            is_last = sequence.num_generated >= sequence.output_tokens
            if is_last:
                self._finish(sequence)
                num_completed += 1
            interval = self.settings.stream_interval
            if is_last or before == 0 or sequence.num_generated // interval > before // interval:
                sequence.chunks.put_nowait(sequence.num_generated)
        if self._crash_after_tokens is not None and self._num_tokens > self._crash_after_tokens:
            print("[TRT-LLM] [E] RuntimeError: CUDA error: an illegal memory access was encountered", flush=True)
            os._exit(1)
        return num_completed

    def _finish(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.finished.append(sequence)
        self.totals["requests"] += 1
        self.totals["prompt_tokens"] += sequence.prompt_tokens
        self.totals["generation_tokens"] += sequence.num_generated
        times_s = sequence.times_s
        self.totals["ttft_s"] += times_s["first_token_time"] - times_s["arrival_time"]
        self.totals["queue_s"] += times_s["first_scheduled_time"] - times_s["arrival_time"]

    def _note(
        self, began_s: float, num_sequences: int, num_context: int, context_tokens: int, num_completed: int
    ) -> None:
        """Keep a step's statistics. Source of the names: tensorrt_llm/metrics/collector.py."""
        settings = self.settings
        num_blocks = settings.kv_tokens // settings.tokens_per_block
        used = round(num_blocks * self.kv_use)
        self.iterations.append({
            "iter": self._num_steps,
            "iterLatencyMS": 1e3 * (time.monotonic() - began_s),
            "numActiveRequests": num_sequences,
            "numQueuedRequests": len(self.waiting),
            "numCompletedRequests": num_completed,
            "maxNumActiveRequests": settings.max_requests,
            "maxBatchSizeStatic": settings.max_batch_size,
            "kvCacheStats": {
                "maxNumBlocks": num_blocks, "usedNumBlocks": used, "freeNumBlocks": num_blocks - used,
                "tokensPerBlock": settings.tokens_per_block, "reusedBlocks": 0, "missedBlocks": 0, "cacheHitRate": 0.0,
            },
            "inflightBatchingStats": {
                "numScheduledRequests": num_sequences, "numContextRequests": num_context,
                "numGenRequests": num_sequences - num_context, "numPausedRequests": 0, "numCtxTokens": context_tokens,
            },
        })  # fmt: skip
