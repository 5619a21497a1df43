"""How long an iteration takes, and what its boards draw: pure functions of the work and a calibration."""

from dataclasses import dataclass

import numpy as np

from pipeline.roofline.calibration import Calibration
from pipeline.roofline.work import Numbers, Work

CLOCKED_SHARE, CLOCK_POWER_EXPONENT = 0.5, 2.0
"""Of a board's power above idle, the share that the SM clock drives, and how it goes with the clock. No point of the
fit has another clock: chosen so that a low clock saves what was reported, up to 32 % of the energy of decoding on an
H200 at little loss (arXiv 2605.11999), and 42 % at a fifteenth of the clock (arXiv 2501.08219, another board)."""

MIN_CLOCK_SHARE = 0.3
"""Of the highest SM clock: below it these equations save nothing more (600 MHz of an H100's 1,980)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One iteration as each device sees it; numbers or arrays, as the work.

    Attributes:
        time_s: Duration; tokens/s is requests running / this.
        prompt_s: What one prompt adds to it.
        memory_s: Time in which decoding keeps memory busy.
        compute_s: Time in which tensor cores are busy, decoding and prompts.
        power_w: Mean power of one board.
    """

    time_s: Numbers
    prompt_s: Numbers
    memory_s: Numbers
    compute_s: Numbers
    power_w: Numbers


def step(work: Work, constants: Calibration, clock_share: Numbers = 1.0) -> Step:
    """Time and power of one iteration.

    Decoding takes the longer of memory and tensor cores; launches, exchanges, prompts and the host come on top. Power
    is idle plus shares of (limit - idle) for any kernel running, memory traffic and operations, at most the limit. A
    lower SM clock slows tensor cores and launches, not the memory, and saves power.

    Args:
        work: What is to do.
        constants: Of the fit.
        clock_share: SM clock / the highest one, which the constants stand for.
    """
    memory_share = _by_arch(work, constants.memory_share_hopper, constants.memory_share_blackwell)
    expert_share = np.where(work.num_fp8_expert_layers, constants.expert_share_fp8, constants.expert_share)
    read_s = work.weight_bytes / memory_share + work.expert_bytes / expert_share + work.kv_bytes / constants.kv_share
    memory_s = read_s / work.bandwidth_bytes_per_s
    rate = work.rate_flops_per_s * constants.compute_share * clock_share
    decode_s = work.decode_flops / rate
    prefill_s = work.prefill_flops / rate
    prefill_s += work.expert_prefill_flops / (work.rate_flops_per_s * constants.expert_prefill_share * clock_share)
    prefill_s *= 1 + work.is_divided_by_rank * (constants.rank_prefill_factor - 1)
    launch_s = constants.launch_s_per_layer * work.num_layers
    launch_s += constants.fp8_experts_s_per_layer * work.num_fp8_expert_layers
    launch_s /= clock_share
    exchange_s = constants.exchange_s * work.num_exchanges
    exchange_s += work.exchange_bytes / (work.link_bytes_per_s * constants.link_share)
    prompts_s = prefill_s + constants.prompt_s * work.prompts

    device_s = (np.maximum(memory_s, decode_s) + launch_s) * work.iterations + exchange_s + prompts_s
    time_s = device_s + constants.host_s * work.iterations + constants.host_s_per_request * work.batch
    used_bytes = work.weight_bytes + work.expert_bytes + work.kv_bytes
    used_flops = work.decode_flops + work.prefill_flops + work.expert_prefill_flops
    use = (
        _by_arch(work, constants.busy_hopper, constants.busy_blackwell) * device_s
        + _by_arch(work, constants.memory_power_hopper, constants.memory_power_blackwell)
        * (used_bytes / work.bandwidth_bytes_per_s)
        + _by_arch(work, constants.compute_power_hopper, constants.compute_power_blackwell)
        * (used_flops / work.rate_flops_per_s)
    )  # fmt: skip
    use *= (1 - CLOCKED_SHARE + CLOCKED_SHARE * clock_share**CLOCK_POWER_EXPONENT) / time_s
    return Step(
        time_s=time_s * work.num_stages,
        prompt_s=prompts_s * work.num_stages / work.prompts,
        memory_s=memory_s * work.num_stages,
        compute_s=(decode_s + prefill_s) * work.num_stages,
        power_w=work.idle_w + (work.limit_w - work.idle_w) * np.minimum(1.0, use),
    )


def capped_step(work: Work, constants: Calibration, cap_w: float) -> Step:
    """The same where a power cap holds the SM clock down: the highest clock at which a board draws no more.

    At the lowest clock a board draws what it draws, cap or not.
    """
    high = np.ones_like(work.batch, dtype=float)
    low = MIN_CLOCK_SHARE * high
    is_free = step(work, constants).power_w <= cap_w
    for _ in range(20):  # to a millionth
        middle = (low + high) / 2
        is_below = step(work, constants, middle).power_w <= cap_w
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return step(work, constants, np.where(is_free, 1.0, low))


def _by_arch(work: Work, hopper: float, blackwell: float) -> Numbers:
    return blackwell + work.is_hopper * (hopper - blackwell)
