"""Throughput, latency and power of one configuration under load, closed or open, from facts and constants alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.engine_config import EngineConfig
from pipeline.roofline.calibration import SHIPPED, Calibration
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.memory import attention_ranks, engine_defaults, fits, published, requests_that_fit
from pipeline.roofline.step import Step, capped_step, step
from pipeline.roofline.work import Numbers, work
from pipeline.study import Hardware, Model
from pipeline.workload import OperatingPoint, Workload

NUM_GUESSES, NUM_ROUNDS, TOLERANCE = 17, 3, 0.005
"""Batches tried at once, each time between the two next to it, for the one that an open loop keeps; it is met to less
than this tolerance, 16 ** -3 of the range's logarithm, and a rate that is missed by more is beyond the engine."""

MAX_USE = 0.999
"""Of the time by prompts: the wait that follows is long enough to break any SLO."""

Bound = Literal["memory", "compute", "overhead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the roofline expects; modelled, never measured.

    Attributes:
        output_tokens_per_s: Of the whole engine.
        total_tokens_per_s: Prompt tokens included.
        ttft_s: Mean time to first token, waiting for a place in the batch included; None where more is asked for than
            the engine can do, and the queue grows without end.
        tpot_s: Mean time per output token after the first.
        power_w: Boards of all reserved devices.
        output_tokens_per_joule: The score.
        running: Requests running at once, on average; the other ones of a closed loop wait.
        bound: What most of an iteration goes to.
    """

    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_s: float | None
    tpot_s: float
    power_w: float
    output_tokens_per_joule: float
    running: float
    bound: Bound


def predict(
    model: Model,
    hardware: Hardware,
    workload: Workload,
    config: EngineConfig,
    point: OperatingPoint,
    calibration: Calibration = SHIPPED,
) -> Prediction | str:
    """Predict one operating point in steady state, or say why the configuration cannot run; see `predict_loads`."""
    found = predict_loads(model, hardware, workload, config, (point,), calibration)
    return found if isinstance(found, str) else found[0]


def predict_loads(
    model: Model,
    hardware: Hardware,
    workload: Workload,
    config: EngineConfig,
    points: Sequence[OperatingPoint],
    calibration: Calibration = SHIPPED,
) -> list[Prediction] | str:
    """Predict operating points of one arrival in steady state, or say why the configuration cannot run.

    Raises:
        ConfigError: If something that the model needs is not set or unknown.
    """
    if reason := fits(model, hardware, config, workload):
        return reason
    lengths, ranks = MeanLengths.of(workload), attention_ranks(config)
    defaults = engine_defaults(config)
    max_num_tokens = (config.batching.max_num_tokens or defaults.max_num_tokens) * ranks
    places = min((config.batching.max_batch_size or defaults.max_batch_size) * ranks, max_num_tokens)
    places = min(places, requests_that_fit(model, hardware, config, workload))

    def iteration(batch: Numbers) -> Step:
        todo = work(model, hardware, config, lengths, batch)
        if hardware.power_cap_w is None:
            return step(todo, calibration, hardware.sm_clock_share)
        return capped_step(todo, calibration, hardware.power_cap_w)

    if workload.arrival == "closed":
        asked = np.array([float(point.concurrency or 1) for point in points])
        running = np.minimum(asked, places)
        done = iteration(running)
        tokens_per_s, busy = running / done.time_s, np.ones_like(running)
        wait_s = (asked - running) * lengths.osl_tokens / tokens_per_s
    else:
        rates_per_s = np.array([point.request_rate_per_s or lengths.request_rate_per_s or 0.0 for point in points])
        asked = rates_per_s * lengths.osl_tokens
        running = _running_at(asked, places, lambda batch: iteration(batch).time_s)
        done = iteration(_batch(running, places))
        tokens_per_s, busy = running / done.time_s, running / _batch(running, places)
        # Prompts wait for each other as in a queue of one server and equal services (Pollaczek and Khinchine).
        use = np.minimum(MAX_USE, rates_per_s * done.prompt_s)
        wait_s = np.where(tokens_per_s < asked * (1 - TOLERANCE), np.inf, use / (1 - use) / 2 * done.prompt_s)
    power_w = busy * done.power_w + (1 - busy) * published(hardware, "idle_power_w")
    power_w *= config.parallelism.num_gpus
    # Waiting for a place, for the running iteration to end, and for the iterations that the prompt takes.
    chunks = np.maximum(1.0, lengths.isl_tokens / np.maximum(1.0, max_num_tokens - running))
    ttft_s = wait_s + done.time_s * (chunks - 1 + busy / 2) + done.prompt_s
    return [
        Prediction(
            output_tokens_per_s=float(tokens_per_s[n]),
            total_tokens_per_s=float(tokens_per_s[n]) * (1 + lengths.isl_tokens / lengths.osl_tokens),
            ttft_s=float(ttft_s[n]) if np.isfinite(ttft_s[n]) else None,
            tpot_s=float(done.time_s[n]),
            power_w=float(power_w[n]),
            output_tokens_per_joule=float(tokens_per_s[n] / power_w[n]),
            running=float(running[n]),
            bound=_bound(float(done.time_s[n]), float(done.memory_s[n]), float(done.compute_s[n])),
        )
        for n in range(len(points))
    ]


def _batch(running: Numbers, places: int) -> Numbers:
    """Requests in an iteration, when there is one, of an open loop that keeps so many running on average.

    Their number is Poisson's where arrivals are and nobody waits, so that there is one with probability 1 - exp(-mean).
    """
    return np.minimum(places, running / -np.expm1(-running))


def _running_at(tokens_per_s: Numbers, places: int, iteration_s: Callable[[Numbers], Numbers]) -> Numbers:
    """Requests that run at a rate of output, by Little's law: rate x time of a token; all places if it is beyond them.

    Args:
        tokens_per_s: Asked for, by point.
        places: The most that can run.
        iteration_s: The time of a token, by batch.
    """
    low = np.minimum(places, tokens_per_s * iteration_s(np.ones_like(tokens_per_s)))
    high = np.full_like(low, places)
    points = np.arange(len(low))
    for _ in range(NUM_ROUNDS):
        guesses = np.geomspace(low, high, NUM_GUESSES)
        rates = np.maximum.accumulate(guesses / iteration_s(_batch(guesses, places)))
        above = np.clip((rates < tokens_per_s).sum(axis=0), 1, NUM_GUESSES - 1)
        low, high = guesses[above - 1, points], guesses[above, points]
    return high


def _bound(time_s: float, memory_s: float, compute_s: float) -> Bound:
    times: dict[Bound, float] = {
        "memory": memory_s, "compute": compute_s, "overhead": time_s - max(memory_s, compute_s)
    }  # fmt: skip
    return max(times, key=lambda name: times[name])
