from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MeterError
from pipeline.meter import recorder
from pipeline.meter.protocol import DeviceReading, PowerSample, StateSample
from pipeline.meter.recorder import DeviceRecorder, copied
from pipeline.meter.source import Observation
from pipeline.vocabulary import Reason

NEVER_S = 1e12


def recorded(*seen: Observation | MeterError) -> DeviceRecorder:
    """A recorder that was closed before it could miss anything."""
    made = DeviceRecorder("d")
    made._closed = True
    for one in seen:
        made.record(one)
    return made


def counter(*energies_j: float) -> list[Observation]:
    return [Observation(t_ns=t_ns, energy_j=energy_j) for t_ns, energy_j in enumerate(energies_j)]


@given(st.lists(st.integers(0, 3), min_size=1))
def test_a_tick_is_a_change_and_the_first_reading_is_none(steps: list[int]) -> None:
    energies_j = [float(sum(steps[: i + 1])) for i in range(len(steps))]
    made = recorded(*counter(*energies_j))
    changes = [(t_ns, b) for t_ns, (a, b) in enumerate(pairwise(energies_j), start=1) if b != a]
    assert [(tick.t_ns, tick.energy_j) for tick in made.reading().ticks] == changes
    assert made.faults() == set()


def test_ticks_end_where_the_counter_goes_backwards_and_samples_go_on() -> None:
    made = recorded(*counter(5.0, 6.0, 7.0, 1.0, 2.0, 9.0))
    made.record(Observation(t_ns=6, energy_j=10.0, sample=PowerSample(t_ns=6, power_w=1.0)))
    assert [tick.energy_j for tick in made.reading().ticks] == [6.0, 7.0]
    assert len(made.reading().samples) == 1
    assert made.faults() == {Reason.COUNTER_RESET}


def test_an_error_ends_all_of_it_once(caplog: pytest.LogCaptureFixture) -> None:
    made = recorded(*counter(1.0, 2.0), MeterError("the sensor is gone"), *counter(3.0), MeterError("twice"))
    assert [tick.energy_j for tick in made.reading().ticks] == [2.0]
    assert made.faults() == {Reason.NO_ENERGY}
    assert "the sensor is gone; its readings end here" in caplog.text
    assert "twice" not in caplog.text


stamps = st.one_of(st.none(), st.integers(1, 3))


@given(st.lists(st.tuples(stamps, st.sampled_from([None, 100.0, 200.0]))))
def test_only_a_sample_with_stamp_and_value_of_the_last_one_is_dropped(
    seen: list[tuple[int | None, float | None]],
) -> None:
    """Stamps are of a wall clock that may step: whether one is later than another says nothing."""
    samples = [PowerSample(t_ns=t, power_w=power_w, field_t_us=stamp) for t, (stamp, power_w) in enumerate(seen)]
    made = recorded(*(Observation(t_ns=sample.t_ns, energy_j=0.0, sample=sample) for sample in samples))
    kept = [
        sample
        for i, sample in enumerate(samples)
        if i == 0 or sample.field_t_us is None or seen[i] != seen[i - 1]
    ]  # fmt: skip
    assert made.reading().samples == kept


def test_every_state_is_kept() -> None:
    states = [StateSample(t_ns=t, temperature_c=50.0) for t in range(3)]
    made = recorded(*(Observation(t_ns=state.t_ns, energy_j=0.0, state=state) for state in states))
    assert made.reading().states == states


def test_silence_is_a_fault_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, silent, closed = DeviceRecorder("d"), DeviceRecorder("d"), DeviceRecorder("d")
    monkeypatch.setattr(recorder, "STALLED_S", NEVER_S)
    assert heard.faults() == set()
    closed.close()
    monkeypatch.setattr(recorder, "STALLED_S", 0.0)
    silent.close()
    assert silent.faults() == {Reason.NO_ENERGY}
    assert closed.faults() == set()


def test_a_copy_shares_no_list() -> None:
    reading = DeviceReading(samples=[PowerSample(t_ns=1)], states=[StateSample(t_ns=1)])
    copy = copied(reading)
    assert copy == reading
    for kept in (copy.ticks, copy.samples, copy.states):
        kept.clear()
    assert len(reading.samples) == len(reading.states) == 1
