"""What every meter must do, whatever it reads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from pipeline.meter.declared import DeclaredMeter
from pipeline.meter.energy import common_window
from pipeline.meter.nvml import NvmlMeter
from pipeline.meter.nvml_source import NvmlSource
from pipeline.meter.protocol import DeviceReading, EnergyTick, Meter, MeterInfo, PowerSample, StateSample
from pipeline.meter.rapl import RaplMeter
from pipeline.meter.replay import ReplayMeter
from pipeline.meter.sampling import SampledMeter
from pipeline.vocabulary import Boundary, Evidence
from tests.meter.fake_nvml import FakeGpu, FakeNvml, make_fake_nvml
from tests.meter.fake_powercap import add_zone, moving
from tests.meter.waiting import wait_until


@contextmanager
def _nvml(folder: Path) -> Iterator[Meter]:
    gpus = [FakeGpu(uuid=f"GPU-{i}", power_w=lambda t_s, i=i: 300.0 + 100.0 * i, tick_s=0.03) for i in range(2)]  # type: ignore[misc]  # mypy cannot infer a lambda with a bound default
    nvml = FakeNvml(*gpus)
    yield NvmlMeter([gpu.uuid for gpu in gpus], nvml)
    assert nvml.init_count == 0, "the library was left open"


@contextmanager
def _nvml_process(folder: Path) -> Iterator[Meter]:
    """As the real library is read: in the child, which makes the stand-in."""
    nvml = make_fake_nvml()
    uuids = tuple(gpu.uuid for gpu in nvml.gpus)
    yield SampledMeter(NvmlMeter(uuids, nvml).info, NvmlSource(uuids, make_fake_nvml), 0.02)


@contextmanager
def _rapl(folder: Path) -> Iterator[Meter]:
    counters = [add_zone(folder, f"intel-rapl:{i}", f"package-{i}") for i in range(2)]
    with moving(counters):
        yield RaplMeter(folder)


@contextmanager
def _declared(folder: Path) -> Iterator[Meter]:
    yield DeclaredMeter(idle_w=10.0, busy_w_per_core=5.0)


@contextmanager
def _replay(folder: Path) -> Iterator[Meter]:
    reading = DeviceReading(
        ticks=[EnergyTick(n * 100_000_000, 30.0 * n) for n in range(50)],
        samples=[PowerSample(t_ns=n * 100_000_000, power_w=300.0) for n in range(50)],
        states=[StateSample(t_ns=0, thermal_ns=0)],
    )
    info = MeterInfo(
        name="nvml",
        description="a recording",
        boundary=Boundary.GPU,
        evidence=Evidence.SIMULATED,
        devices=("GPU-0",),
    )
    yield ReplayMeter({"GPU-0": reading}, info)


METERS: dict[str, Callable[[Path], AbstractContextManager[Meter]]] = {
    "nvml": _nvml,
    "nvml_process": _nvml_process,
    "rapl": _rapl,
    "declared": _declared,
    "replay": _replay,
}


@pytest.fixture(params=sorted(METERS))
def meter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Meter]:
    with METERS[request.param](tmp_path) as made:
        yield made


def wait_for_ticks(meter: Meter, num_ticks: int = 4) -> None:
    wait_until(lambda: all(len(r.ticks) >= num_ticks for r in meter.reading().values()), "ticks of every device")


def running() -> tuple[set[threading.Thread], list[psutil.Process]]:
    """Threads and child processes of this process."""
    return set(threading.enumerate()), psutil.Process().children()


def test_it_says_what_it_is_before_it_starts(meter: Meter) -> None:
    info = meter.info
    assert info.name in {"nvml", "rapl", "declared"}
    assert info.description
    assert "\n" not in info.description
    assert len(set(info.devices)) == len(info.devices) > 0
    assert info.evidence is not Evidence.MEASURED, "a stand-in must never pass for a sensor"
    assert (info.boundary is Boundary.GPU) == (info.name == "nvml")


def test_devices_are_those_of_info_before_during_and_after(meter: Meter) -> None:
    devices = list(meter.info.devices)
    assert list(meter.reading()) == devices
    with meter:
        assert list(meter.reading()) == devices
        wait_for_ticks(meter, 1)
    assert list(meter.reading()) == devices


def test_ticks_go_forward_in_time_and_energy(meter: Meter) -> None:
    with meter:
        wait_for_ticks(meter)
    for reading in meter.reading().values():
        assert all(a.t_ns < b.t_ns and a.energy_j < b.energy_j for a, b in pairwise(reading.ticks))
        assert all(a.t_ns < b.t_ns for a, b in pairwise(reading.samples))
        assert all(a.t_ns < b.t_ns for a, b in pairwise(reading.states))
    assert meter.faults() == ()


def test_its_ticks_give_an_energy_above_0(meter: Meter) -> None:
    with meter:
        wait_for_ticks(meter)
        readings = meter.reading()
    edges_ns = [tick.t_ns for reading in readings.values() for tick in reading.ticks]
    window = common_window(readings, min(edges_ns), max(edges_ns))
    assert window is not None
    assert window.energy_j > 0


def test_a_reading_is_a_copy(meter: Meter) -> None:
    with meter:
        wait_for_ticks(meter)
        for reading in meter.reading().values():
            for kept in (reading.ticks, reading.samples, reading.states):
                kept.clear()
        wait_for_ticks(meter)
        held = meter.reading()
        ticks = {uuid: list(reading.ticks) for uuid, reading in held.items()}
    assert all(len(r.ticks) >= 4 for r in meter.reading().values())
    assert {uuid: reading.ticks for uuid, reading in held.items()} == ticks


def test_leaving_leaves_no_thread_or_process_and_keeps_the_reading(meter: Meter) -> None:
    before = running()
    with meter as entered:
        assert entered is meter
        wait_for_ticks(meter)
    assert running() == before
    after = meter.reading()
    assert all(reading.ticks for reading in after.values())
    assert meter.reading() == after


def test_leaving_twice_or_without_a_start_is_fine(meter: Meter) -> None:
    meter.__exit__(None, None, None)
    with meter:
        wait_for_ticks(meter, 1)
    meter.__exit__(None, None, None)
    assert meter.faults() == ()


def test_an_error_inside_passes_through_and_stops_it(meter: Meter) -> None:
    before = running()
    with pytest.raises(KeyError), meter:
        raise KeyError
    assert running() == before
