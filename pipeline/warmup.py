"""When a warm-up may end: nothing that can be seen of the engine still changes.

What cannot be seen (None, or no reading at all) holds nothing up: it counts as settled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.steadiness import is_steady
from pipeline.study import Plan
from pipeline.verdict import MIN_OCCUPANCY

NUM_STEADY_BLOCKS = 5
"""Blocks of `plan.block_s` that must agree before a window opens; the last ones count."""

TEMPERATURE_SPAN_S = 30.0
"""Time over which `plan.max_temperature_change_c` is meant."""

MIN_BURST_CORES, MIN_BURST_SHARE = 0.5, 0.25
"""CPU of the engine's processes in one block beyond the least of the blocks: more than both is a compiler at work.
A serving process waits for its GPU at one core's full use, block by block alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupBlock:
    """One stretch of `plan.block_s` of a warm-up; None where that cannot be seen.

    Attributes:
        tokens_per_s: Output tokens that arrived per second.
        occupancy: Mean requests in flight / concurrency; None in an open loop.
        num_new_kernels: Files added to the engine's kernel caches.
        num_compile_lines: Log lines that tell of a kernel compiled.
        engine_cores: CPU seconds of the engine's processes per second; None where the CPU is the device itself.
    """

    tokens_per_s: float
    occupancy: float | None = None
    num_new_kernels: int | None = None
    num_compile_lines: int | None = None
    engine_cores: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupState:
    """What has been seen of a warm-up, in order of time.

    Attributes:
        blocks: One after the other, the last just ended.
        temperatures_c: (t_ns, degrees Celsius) of the hottest device, up to now.
    """

    blocks: Sequence[WarmupBlock]
    temperatures_c: Sequence[tuple[int, float]] = ()


def unsettled(state: WarmupState, plan: Plan) -> tuple[str, ...]:
    """What still has to settle before the window opens.

    - `occupancy`: fewer than MIN_OCCUPANCY of the requests are in flight, on the mean of the last blocks.
    - `throughput`: fewer than NUM_STEADY_BLOCKS blocks, or a trend or stall in the last ones.
    - `kernels`: in the last blocks a kernel was compiled, or the engine's processes had a burst of CPU.
    - `temperature`: by a straight line through the last 30 s it moves more than `plan.max_temperature_change_c` in
      that time, or has been read for less; not asked where the plan names no limit.
    """
    blocks = state.blocks[-NUM_STEADY_BLOCKS:]
    changing = {
        "occupancy": _is_idle(blocks),
        "throughput": len(blocks) < NUM_STEADY_BLOCKS
        or not is_steady([block.tokens_per_s for block in blocks], plan.steady_tolerance),
        "kernels": _is_compiling(blocks),
        "temperature": plan.max_temperature_change_c is not None
        and _is_warming(state.temperatures_c, plan.max_temperature_change_c),
    }
    return tuple(name for name, is_changing in changing.items() if is_changing)


def _is_idle(blocks: Sequence[WarmupBlock]) -> bool:
    seen = [block.occupancy for block in blocks if block.occupancy is not None]
    return bool(seen) and sum(seen) / len(seen) < MIN_OCCUPANCY


def _is_compiling(blocks: Sequence[WarmupBlock]) -> bool:
    cores = [block.engine_cores for block in blocks if block.engine_cores is not None]
    least = min(cores, default=0.0)
    has_burst = max(cores, default=0.0) - least > max(MIN_BURST_CORES, MIN_BURST_SHARE * least)
    return has_burst or any(block.num_new_kernels or block.num_compile_lines for block in blocks)


def _is_warming(temperatures_c: Sequence[tuple[int, float]], limit_c: float) -> bool:
    if not temperatures_c:
        return False
    times_s = (np.asarray([t_ns for t_ns, _ in temperatures_c], dtype=np.int64) - temperatures_c[-1][0]) * 1e-9
    if times_s[0] > -TEMPERATURE_SPAN_S:
        return True
    late = times_s >= -TEMPERATURE_SPAN_S
    if late.sum() < 2:
        return True
    slope = np.polyfit(times_s[late], np.asarray([value for _, value in temperatures_c])[late], 1)[0]
    return abs(float(slope)) * TEMPERATURE_SPAN_S > limit_c
