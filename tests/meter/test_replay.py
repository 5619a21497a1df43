import pytest

from pipeline.errors import MeterError
from pipeline.meter.protocol import DeviceReading, EnergyTick, MeterInfo, PowerSample, StateSample
from pipeline.meter.replay import ReplayMeter
from pipeline.vocabulary import Boundary, Evidence, Reason

READING = DeviceReading(
    ticks=[EnergyTick(1, 10.0), EnergyTick(2, 11.0)],
    samples=[PowerSample(t_ns=1, power_w=300.0)],
    states=[StateSample(t_ns=1, power_limit_w=700.0, brake_ns=5)],
)
INFO = MeterInfo(
    name="nvml",
    description="as recorded",
    boundary=Boundary.GPU,
    evidence=Evidence.MEASURED,
    devices=("GPU-2", "GPU-1"),
)


def test_it_yields_the_whole_recording_under_its_own_info() -> None:
    with ReplayMeter({"GPU-1": READING, "GPU-2": READING}, INFO, (Reason.COUNTER_RESET,)) as meter:
        assert meter.reading() == {"GPU-2": READING, "GPU-1": READING}
        assert list(meter.reading()) == ["GPU-2", "GPU-1"]
        assert meter.info is INFO
        assert meter.faults() == (Reason.COUNTER_RESET,)


def test_what_happens_to_the_source_does_not_reach_it() -> None:
    source = DeviceReading(ticks=[EnergyTick(1, 1.0)])
    meter = ReplayMeter({"GPU-1": source, "GPU-2": READING}, INFO)
    source.ticks.append(EnergyTick(2, 2.0))
    source.states.append(StateSample(t_ns=2))
    assert meter.reading()["GPU-1"] == DeviceReading(ticks=[EnergyTick(1, 1.0)])


@pytest.mark.parametrize("readings", [{}, {"GPU-1": READING}, dict.fromkeys(("GPU-1", "GPU-2", "GPU-3"), READING)])
def test_a_recording_of_other_devices_is_refused(readings: dict[str, DeviceReading]) -> None:
    with pytest.raises(MeterError, match="replay the whole recording of one meter"):
        ReplayMeter(readings, INFO)


@pytest.mark.parametrize("second", [EnergyTick(1, 11.0), EnergyTick(2, 9.0)])
def test_ticks_that_go_back_are_refused(second: EnergyTick) -> None:
    bad = DeviceReading(ticks=[EnergyTick(1, 10.0), second])
    with pytest.raises(MeterError, match="GPU-2: ticks go back"):
        ReplayMeter({"GPU-1": READING, "GPU-2": bad}, INFO)
