import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.meter.energy import (
    common_window,
    energy_between,
    integrate_power_j,
    largest_gap_s,
    limit_range_w,
    mean_power_w,
    state_delta_s,
    state_mean,
)
from pipeline.meter.protocol import DeviceReading, EnergyTick, PowerSample, StateSample

MS = 1_000_000
S = 1_000_000_000

UNTIMED = settings(deadline=None)
"""How long an example takes says something about the machine only."""

watts = st.floats(min_value=1.0, max_value=2000.0)
gaps_ns = st.lists(st.integers(min_value=1, max_value=999 * MS), min_size=3, max_size=30)
origins_ns = st.integers(min_value=0, max_value=10**15)
shares = st.floats(min_value=0.0, max_value=1.0)


def times(origin_ns: int, gaps: list[int]) -> list[int]:
    return [origin_ns + sum(gaps[:i]) for i in range(len(gaps) + 1)]


def constant(times_ns: list[int], power_w: float) -> DeviceReading:
    """Ticks and samples of a device that draws the same power all the time."""
    return DeviceReading(
        ticks=[EnergyTick(t, power_w * (t - times_ns[0]) / 1e9) for t in times_ns],
        samples=[PowerSample(t_ns=t, power_w=power_w) for t in times_ns],
    )


def within(times_ns: list[int], share: float) -> int:
    return times_ns[0] + round(share * (times_ns[-1] - times_ns[0]))


@UNTIMED
@given(origins_ns, gaps_ns, watts, shares, shares)
def test_constant_power_gives_exactly_that_power(
    origin_ns: int, gaps: list[int], power_w: float, a: float, b: float
) -> None:
    t = times(origin_ns, gaps)
    open_ns, close_ns = sorted((within(t, a), within(t, b)))
    reading = constant(t, power_w)
    common = common_window({"d": reading}, open_ns, close_ns)
    if common is not None:
        assert common.power_w == pytest.approx(power_w, rel=1e-6)
        assert common.energy_j == pytest.approx(power_w * (common.t1_ns - common.t0_ns) / 1e9)
    integral_j = integrate_power_j(reading.samples, open_ns, close_ns)
    if open_ns < close_ns:
        assert integral_j == pytest.approx(power_w * (close_ns - open_ns) / 1e9)
    else:
        assert integral_j is None


@UNTIMED
@given(origins_ns, gaps_ns, st.data())
def test_adjacent_windows_add_up(origin_ns: int, gaps: list[int], data: st.DataObject) -> None:
    t = times(origin_ns, gaps)
    powers = data.draw(st.lists(watts, min_size=len(t), max_size=len(t)))
    energies = data.draw(st.lists(watts, min_size=len(t), max_size=len(t)))
    ticks = [EnergyTick(at, sum(energies[: i + 1])) for i, at in enumerate(t)]
    middle = data.draw(st.sampled_from(t[1:-1]))
    first, second = energy_between(ticks, t[0], middle), energy_between(ticks, middle, t[-1])
    whole = energy_between(ticks, t[0], t[-1])
    assert first is not None
    assert second is not None
    assert whole is not None
    assert first.t1_ns == second.t0_ns
    assert first.energy_j + second.energy_j == pytest.approx(whole.energy_j)

    samples = [PowerSample(t_ns=at, power_w=power) for at, power in zip(t, powers, strict=True)]
    cut = within(t, data.draw(st.floats(min_value=0.01, max_value=0.99)))
    assume(t[0] < cut < t[-1])
    parts = [integrate_power_j(samples, t[0], cut), integrate_power_j(samples, cut, t[-1])]
    assert None not in parts
    assert sum(part for part in parts if part is not None) == pytest.approx(integrate_power_j(samples, t[0], t[-1]))


@UNTIMED
@given(
    mean_w=st.floats(min_value=100, max_value=700),
    swing=st.floats(min_value=0, max_value=0.5),
    period_s=st.floats(min_value=1.0, max_value=20.0),
    phase=st.floats(min_value=0, max_value=2 * math.pi),
)
def test_counter_and_integral_agree_on_a_swinging_load(
    mean_w: float, swing: float, period_s: float, phase: float
) -> None:
    def power_w(t_s: float) -> float:
        return mean_w * (1 + swing * math.sin(2 * math.pi * t_s / period_s + phase))

    def energy_j(t_s: float) -> float:
        omega = 2 * math.pi / period_s
        return mean_w * (t_s - swing / omega * (math.cos(omega * t_s + phase) - math.cos(phase)))

    ticks = [EnergyTick(100 * i * MS, energy_j(i / 10)) for i in range(300)]
    samples = [PowerSample(t_ns=20 * i * MS, power_w=power_w(i / 50)) for i in range(1500)]
    window = energy_between(ticks, 1234 * MS, 25_678 * MS)
    assert window is not None
    assert (window.t0_ns, window.t1_ns) == (1300 * MS, 25_600 * MS)
    assert integrate_power_j(samples, window.t0_ns, window.t1_ns) == pytest.approx(window.energy_j, rel=1e-3)


@UNTIMED
@given(st.lists(st.tuples(origins_ns.map(lambda t: t % S), watts), min_size=2, max_size=6))
def test_the_order_of_devices_does_not_matter(phases: list[tuple[int, float]]) -> None:
    readings = {
        f"GPU-{i}": constant([phase_ns + n * 100 * MS for n in range(40)], power_w)
        for i, (phase_ns, power_w) in enumerate(phases)
    }
    backwards = dict(sorted(readings.items(), reverse=True))
    window = common_window(readings, S, 3 * S)
    assert window is not None
    assert common_window(backwards, S, 3 * S) == window
    assert window.power_w == pytest.approx(sum(power_w for _, power_w in phases))


def test_the_common_window_is_what_all_devices_cover() -> None:
    fast = constant([n * 100 * MS for n in range(101)], 300.0)
    late = constant([n * 100 * MS + 70 * MS for n in range(101)], 500.0)
    window = common_window({"a": fast, "b": late}, 1_020 * MS, 8_050 * MS)
    assert window is not None
    assert (window.t0_ns, window.t1_ns) == (1_100 * MS, 7_970 * MS)
    assert window.power_w == pytest.approx(800.0)
    assert window.energy_j == pytest.approx(800.0 * 6.87)


@UNTIMED
@given(origins_ns, gaps_ns, shares, shares)
def test_a_window_never_reaches_beyond_what_was_asked(origin_ns: int, gaps: list[int], a: float, b: float) -> None:
    t = times(origin_ns, gaps)
    open_ns, close_ns = sorted((within(t, a), within(t, b)))
    window = energy_between(constant(t, 100.0).ticks, open_ns, close_ns)
    inside = [at for at in t if open_ns <= at <= close_ns]
    if len(inside) < 2:
        assert window is None
    else:
        assert window is not None
        assert (window.t0_ns, window.t1_ns) == (inside[0], inside[-1])


@pytest.mark.parametrize("missing", [DeviceReading(), constant([5 * S], 300.0), constant([20 * S, 30 * S], 300.0)])
def test_one_silent_device_leaves_no_window(missing: DeviceReading) -> None:
    good = constant([n * S for n in range(11)], 300.0)
    assert common_window({"a": good}, 0, 10 * S) is not None
    assert common_window({"a": good, "b": missing}, 0, 10 * S) is None


def test_no_device_or_no_common_time_leaves_no_window() -> None:
    early, late = constant([S, 2 * S], 300.0), constant([3 * S, 4 * S], 300.0)
    assert common_window({}, 0, 10 * S) is None
    assert common_window({"a": early, "b": late}, 0, 10 * S) is None


@pytest.mark.parametrize(
    ("seconds", "t0", "t1"),
    [
        ([0.0, 0.5, 1.0], -0.1, 0.9),
        ([0.0, 0.5, 1.0], 0.1, 1.1),
        ([0.0, 0.5, 1.0], 0.5, 0.5),
        ([0.0, 0.5, 1.0], 0.9, 0.1),
        ([0.0, 0.5, 1.6, 2.0], 0.1, 1.9),
        ([0.0, 1.1], 0.5, 0.6),
        ([], 0.0, 1.0),
    ],
)
def test_power_that_does_not_cover_the_window_is_not_integrated(seconds: list[float], t0: float, t1: float) -> None:
    samples = [PowerSample(t_ns=round(s * S), power_w=100.0) for s in seconds]
    assert integrate_power_j(samples, round(t0 * S), round(t1 * S)) is None


def test_samples_without_power_make_a_gap_not_a_zero() -> None:
    def power(t_ns: int) -> float | None:
        return None if S < t_ns < 3 * S else 100.0

    samples = [PowerSample(t_ns=n * 100 * MS, power_w=power(n * 100 * MS)) for n in range(41)]
    assert integrate_power_j(samples, 0, 4 * S) is None
    assert integrate_power_j(samples, 0, S) == pytest.approx(100.0)


def test_power_at_the_edges_is_interpolated() -> None:
    ramp = [PowerSample(t_ns=n * S, power_w=100.0 * n) for n in range(4)]
    assert integrate_power_j(ramp, S // 2, 5 * S // 2) == pytest.approx(50.0 * (2.5**2 - 0.5**2))


def test_a_repeated_sample_left_out_changes_little() -> None:
    """A 10 Hz sensor polled at 50 Hz, each value kept once, when it was first seen."""

    def power_w(t_ns: int) -> float:
        return 400.0 + 200.0 * math.sin(2 * math.pi * t_ns / (3 * S))

    seen = [PowerSample(t_ns=n * 20 * MS, power_w=power_w(n // 5 * 100 * MS)) for n in range(1500)]
    whole_j, kept_j = (integrate_power_j(samples, S, 28 * S) for samples in (seen, seen[::5]))
    assert kept_j == pytest.approx(whole_j, rel=2e-3)


@UNTIMED
@given(origins_ns, gaps_ns, st.data(), shares, shares)
def test_mean_power_is_the_integral_over_the_time(
    origin_ns: int, gaps: list[int], data: st.DataObject, a: float, b: float
) -> None:
    t = times(origin_ns, gaps)
    powers_w = data.draw(st.lists(watts, min_size=len(t), max_size=len(t)))
    samples = [PowerSample(t_ns=at, power_w=w, memory_power_w=w / 2) for at, w in zip(t, powers_w, strict=True)]
    t0, t1 = sorted((within(t, a), within(t, b)))
    integral_j, mean_w = integrate_power_j(samples, t0, t1), mean_power_w(samples, "power_w", t0, t1)
    if integral_j is None:
        assert mean_w is None
    else:
        assert mean_w is not None
        assert mean_w * (t1 - t0) / 1e9 == pytest.approx(integral_j)
        assert min(powers_w) - 1e-6 <= mean_w <= max(powers_w) + 1e-6
        assert mean_power_w(samples, "memory_power_w", t0, t1) == pytest.approx(mean_w / 2)
    assert mean_power_w(samples, "power_average_w", t0, t1) is None


@UNTIMED
@given(st.lists(st.integers(0, 100), unique=True).map(sorted), st.integers(0, 100), st.integers(0, 100))
def test_the_largest_gap_is_the_longest_walk_without_a_reading(times_ns: list[int], a: int, b: int) -> None:
    t0, t1 = sorted((a, b))
    inside = [t for t in times_ns if t0 <= t <= t1]
    gap_s = largest_gap_s(times_ns, t0, t1)
    if not inside:
        assert gap_s is None
        return
    longest = run = 0
    for t in range(t0, t1):
        run = 1 if t in inside else run + 1
        longest = max(longest, run)
    assert gap_s == longest / 1e9


def test_a_mean_is_over_what_was_answered_within_the_window() -> None:
    celsius = [10.0, 50.0, None, 54.0, 99.0]
    states = [StateSample(t_ns=n * S, temperature_c=c) for n, c in enumerate(celsius)]
    assert state_mean(states, "temperature_c", S, 3 * S) == 52.0
    assert state_mean(states, "temperature_c", 2 * S, 2 * S) is None
    assert state_mean(states, "sm_clock_mhz", 0, 4 * S) is None
    assert state_mean([], "gpu_busy", 0, S) is None


def test_a_busy_share_of_0_is_a_mean_of_0() -> None:
    assert state_mean([StateSample(t_ns=1, gpu_busy=0.0)], "gpu_busy", 0, 2) == 0.0


@pytest.mark.parametrize(
    ("limits_w", "t0", "t1", "expected"),
    [
        ([700.0, 700.0, 700.0, 700.0], 0.5, 2.5, (700.0, 700.0)),
        ([700.0, 400.0, 700.0, 700.0], 0.5, 2.5, (400.0, 700.0)),
        ([700.0, 700.0, 700.0, 500.0], 0.5, 2.5, (500.0, 700.0)),  # after the last answer in the window
        ([500.0, 700.0, 700.0, 700.0], 0.5, 2.5, (500.0, 700.0)),  # before the first
        ([500.0, 700.0, 700.0, 500.0], 1.0, 2.0, (700.0, 700.0)),
        ([700.0, None, 600.0, None], 0.5, 2.5, (600.0, 700.0)),
        ([700.0, 600.0], 5.0, 6.0, (600.0, 600.0)),  # the device fell silent: the last that it said
        ([None, None], 0.0, 1.0, None),
        ([], 0.0, 1.0, None),
    ],
)
def test_the_limits_of_a_window_are_those_that_enclose_it(
    limits_w: list[float | None], t0: float, t1: float, expected: tuple[float, float] | None
) -> None:
    states = [StateSample(t_ns=n * S, power_limit_w=limit_w) for n, limit_w in enumerate(limits_w)]
    assert limit_range_w(states, round(t0 * S), round(t1 * S)) == expected


def held(*pairs: tuple[int, int | None]) -> list[StateSample]:
    return [StateSample(t_ns=t_ns, brake_ns=brake_ns) for t_ns, brake_ns in pairs]


@UNTIMED
@given(origins_ns, gaps_ns, shares, shares, shares, st.integers(min_value=0, max_value=2**60))
def test_time_held_back_grows_with_its_share_and_adds_up(
    origin_ns: int, gaps: list[int], share: float, a: float, b: float, counter_ns: int
) -> None:
    t = times(origin_ns, gaps)
    counted_ns = [counter_ns + round(share * (at - t[0])) for at in t]
    states = held(*zip(t, counted_ns, strict=True))
    t0, t1 = sorted((within(t, a), within(t, b)))
    assume(t[0] < t0 < t1 < t[-1])
    delta_s = state_delta_s(states, "brake_ns", t0, t1)
    assert delta_s == pytest.approx(share * (t1 - t0) / 1e9, abs=3e-9)
    parts = [state_delta_s(states, "brake_ns", t[0], t0), delta_s, state_delta_s(states, "brake_ns", t1, t[-1])]
    assert None not in parts
    assert sum(part for part in parts if part is not None) == pytest.approx(
        (counted_ns[-1] - counted_ns[0]) / 1e9, abs=1e-9
    )


def test_time_held_back_at_an_edge_is_not_lost() -> None:
    states = held((0, 0), (S, 0), (2 * S, 300 * MS), (3 * S, 300 * MS))
    assert state_delta_s(states, "brake_ns", S + 1, 3 * S) == pytest.approx(0.3)
    assert state_delta_s(states, "brake_ns", 0, S) == 0.0


def test_states_that_lack_the_counter_are_passed_over() -> None:
    states = held((0, 0), (S, None), (2 * S, 300 * MS), (3 * S, None))
    assert state_delta_s(states, "brake_ns", 0, 2 * S) == pytest.approx(0.3)
    assert state_delta_s(states, "brake_ns", 0, 3 * S) is None
    assert state_delta_s(states, "thermal_ns", 0, 2 * S) is None


@pytest.mark.parametrize(
    ("pairs", "t0", "t1"),
    [
        ([], 0, S),
        ([(0, 5)], 0, S),
        ([(0, 5), (S, 6)], 0, 2 * S),
        ([(S, 5), (2 * S, 6)], 0, 2 * S),
        ([(0, 5), (S, 4), (2 * S, 9)], 0, 2 * S),
        ([(0, 5), (S, 6)], S, S),
    ],
)
def test_time_held_back_without_cover_is_none(pairs: list[tuple[int, int]], t0: int, t1: int) -> None:
    assert state_delta_s(held(*pairs), "brake_ns", t0, t1) is None
