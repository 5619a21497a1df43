"""Energy over a window, from recorded readings. Pure: the same numbers follow from a stored trace.

Windows open and close on ticks of the counter, because between ticks the counter says nothing. Nothing is
extrapolated: what the readings do not cover is None.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from statistics import fmean

from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample, StateSample

_Point = tuple[int, float]

MAX_SAMPLE_GAP_S = 1.0
"""Longest gap between power samples that is still integrated over: ten refreshes of a 100 ms sensor, which is the
default period of the open NVIDIA kernel driver on data-centre GPUs (RMRusdPollingInterval in nvrm_registry.h)."""


@dataclass(frozen=True, slots=True)
class EnergyWindow:
    """Energy of one device between two of its ticks.

    Attributes:
        t0_ns: First tick, monotonic clock, nanoseconds.
        t1_ns: Last tick; later than `t0_ns`.
        energy_j: Difference of the counter, joules.
    """

    t0_ns: int
    t1_ns: int
    energy_j: float

    @property
    def power_w(self) -> float:
        """Mean power between the two ticks, watts."""
        return self.energy_j / _seconds(self.t0_ns, self.t1_ns)


@dataclass(frozen=True, slots=True)
class CommonWindow:
    """Energy of several devices over the time that the ticks of all of them cover.

    Attributes:
        t0_ns: Latest of the devices' first ticks, monotonic clock, nanoseconds.
        t1_ns: Earliest of their last ticks; later than `t0_ns`.
        power_w: Sum over devices of the mean power between each one's own ticks, watts.
        energy_j: `power_w` times the length of the common window, joules.
    """

    t0_ns: int
    t1_ns: int
    power_w: float
    energy_j: float


def energy_between(ticks: Sequence[EnergyTick], open_ns: int, close_ns: int) -> EnergyWindow | None:
    """Energy from the first tick at or after `open_ns` to the last tick at or before `close_ns`.

    Args:
        ticks: Ticks of one device in order of time.
        open_ns: Earliest edge, monotonic clock, nanoseconds.
        close_ns: Latest edge.

    Returns:
        The window between the two ticks, or None if fewer than two ticks lie in [open_ns, close_ns].
    """
    first = bisect_left(ticks, open_ns, key=_tick_ns)
    last = bisect_right(ticks, close_ns, key=_tick_ns) - 1
    if last <= first:
        return None
    return EnergyWindow(ticks[first].t_ns, ticks[last].t_ns, ticks[last].energy_j - ticks[first].energy_j)


def common_window(readings: Mapping[str, DeviceReading], open_ns: int, close_ns: int) -> CommonWindow | None:
    """Energy of all devices over one window, each device's power taken between its own ticks.

    Args:
        readings: One reading per device of the deployment, as `Meter.reading` gives them.
        open_ns: Earliest edge, monotonic clock, nanoseconds.
        close_ns: Latest edge.

    Returns:
        The common window, or None if there is no device, a device has fewer than two ticks in
        [open_ns, close_ns], or the devices' ticks have no time in common.
    """
    windows = []
    for reading in readings.values():
        window = energy_between(reading.ticks, open_ns, close_ns)
        if window is None:
            return None
        windows.append(window)
    t0_ns = max((window.t0_ns for window in windows), default=0)
    t1_ns = min((window.t1_ns for window in windows), default=0)
    if t1_ns <= t0_ns:
        return None
    power_w = sum(sorted(window.power_w for window in windows))  # sorted: the same bits whatever the order of devices
    return CommonWindow(t0_ns, t1_ns, power_w, power_w * _seconds(t0_ns, t1_ns))


def integrate_power_j(samples: Iterable[PowerSample], t0_ns: int, t1_ns: int) -> float | None:
    """Integral of instantaneous power over [t0_ns, t1_ns]: trapezoids, with power at the edges interpolated.

    Args:
        samples: Samples of one device in order of time; those without power are left out.
        t0_ns: Start, monotonic clock, nanoseconds.
        t1_ns: End.

    Returns:
        Joules, or None if the window is empty, the samples do not reach both edges, or two neighbours
        within reach of the window lie more than MAX_SAMPLE_GAP_S apart.
    """
    return _integral(samples, "power_w", t0_ns, t1_ns)


def mean_power_w(samples: Iterable[PowerSample], name: str, t0_ns: int, t1_ns: int) -> float | None:
    """Mean over time of one of a sample's powers in [t0_ns, t1_ns], watts; None where its integral would be."""
    integral_j = _integral(samples, name, t0_ns, t1_ns)
    return None if integral_j is None else integral_j / _seconds(t0_ns, t1_ns)


def largest_gap_s(times_ns: Sequence[int], t0_ns: int, t1_ns: int) -> float | None:
    """Longest time without a reading in [t0_ns, t1_ns], from edge to first and last to edge included.

    Args:
        times_ns: Times of the readings in order, monotonic clock, nanoseconds.
        t0_ns: Start.
        t1_ns: End.

    Returns:
        Seconds, or None if no reading lies in the window.
    """
    inside = times_ns[bisect_left(times_ns, t0_ns) : bisect_right(times_ns, t1_ns)]
    if not inside:
        return None
    return max(_seconds(a, b) for a, b in pairwise([t0_ns, *inside, t1_ns]))


def state_mean(states: Sequence[StateSample], name: str, t0_ns: int, t1_ns: int) -> float | None:
    """Mean of what the device answered for `name` in [t0_ns, t1_ns], in its unit; None if it never did."""
    inside = states[bisect_left(states, t0_ns, key=_state_ns) : bisect_right(states, t1_ns, key=_state_ns)]
    values: list[float] = [value for state in inside if (value := getattr(state, name)) is not None]
    return fmean(values) if values else None


def state_delta_s(states: Sequence[StateSample], name: str, t0_ns: int, t1_ns: int) -> float | None:
    """Growth of a cumulative time counter over [t0_ns, t1_ns].

    The counter is interpolated at the edges, so growth that any read saw within the window is never lost.

    Args:
        states: States of one device in order of time; those that lack the counter are left out.
        name: The counter: thermal_ns, brake_ns or power_cap_ns.
        t0_ns: Start, monotonic clock, nanoseconds.
        t1_ns: End.

    Returns:
        Seconds, or None if the window is empty, the readings do not reach both edges, or the counter went
        backwards within reach of the window.
    """
    points = [(state.t_ns, held_ns) for state in states if (held_ns := getattr(state, name)) is not None]
    covering = _covering(points, t0_ns, t1_ns)
    if covering is None or any(b < a for (_, a), (_, b) in pairwise(covering)):
        return None
    # From the first value on: cumulative ns since boot would lose digits as floats.
    grown = [(t_ns, value - covering[0][1]) for t_ns, value in covering]
    return (_value_at(grown[-2], grown[-1], t1_ns) - _value_at(grown[0], grown[1], t0_ns)) / 1e9


def hottest_c(readings: Mapping[str, DeviceReading]) -> list[tuple[int, float]]:
    """(t_ns, degrees Celsius) of the device that is hottest now; nothing where no temperature is known."""
    known = [
        [(state.t_ns, state.temperature_c) for state in device.states if state.temperature_c is not None]
        for device in readings.values()
    ]
    return max(known, key=lambda series: series[-1][1] if series else -math.inf, default=[])


def limit_range_w(states: Sequence[StateSample], t0_ns: int, t1_ns: int) -> tuple[float, float] | None:
    """Lowest and highest power limit from the last answer before the window to the first one after it.

    Args:
        states: States of one device in order of time; those without limit are left out.
        t0_ns: Start, monotonic clock, nanoseconds.
        t1_ns: End.

    Returns:
        Watts, or None if there is no such answer.
    """
    points = [(state.t_ns, state.power_limit_w) for state in states if state.power_limit_w is not None]
    first = max(0, bisect_right(points, t0_ns, key=itemgetter(0)) - 1)
    last = bisect_left(points, t1_ns, key=itemgetter(0))
    limits = [limit_w for _, limit_w in points[first : last + 1]]
    return (min(limits), max(limits)) if limits else None


def _integral(samples: Iterable[PowerSample], name: str, t0_ns: int, t1_ns: int) -> float | None:
    points = [(sample.t_ns, power_w) for sample in samples if (power_w := getattr(sample, name)) is not None]
    covering = _covering(points, t0_ns, t1_ns)
    if covering is None:
        return None
    if any(_seconds(a, b) > MAX_SAMPLE_GAP_S for (a, _), (b, _) in pairwise(covering)):
        return None
    start, end = _value_at(covering[0], covering[1], t0_ns), _value_at(covering[-2], covering[-1], t1_ns)
    path = [(t0_ns, start), *covering[1:-1], (t1_ns, end)]
    return sum(_seconds(a, b) * (p + q) / 2 for (a, p), (b, q) in pairwise(path))


def _covering(points: Sequence[_Point], t0_ns: int, t1_ns: int) -> Sequence[_Point] | None:
    """The points from the last one at or before t0 to the first one at or after t1; None if they do not reach."""
    first = bisect_right(points, t0_ns, key=itemgetter(0)) - 1
    last = bisect_left(points, t1_ns, key=itemgetter(0))
    if t1_ns <= t0_ns or first < 0 or last >= len(points):
        return None
    return points[first : last + 1]


def _value_at(before: _Point, after: _Point, t_ns: int) -> float:
    """Linear interpolation between two points of different times."""
    share = (t_ns - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


def _tick_ns(tick: EnergyTick) -> int:
    return tick.t_ns


def _state_ns(state: StateSample) -> int:
    return state.t_ns


def _seconds(t0_ns: int, t1_ns: int) -> float:
    return (t1_ns - t0_ns) / 1e9
