import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pynvml
import pytest

from pipeline.errors import MeterError
from pipeline.meter.energy import common_window, integrate_power_j, limit_range_w
from pipeline.meter.nvml import NvmlMeter, _evidence
from pipeline.meter.nvml_source import NvmlSource
from pipeline.meter.protocol import DeviceReading
from pipeline.meter.sampling import SampledMeter
from pipeline.meter.visible_gpus import visible_gpus
from pipeline.vocabulary import Boundary, Evidence, Reason
from tests.meter.fake_nvml import (
    FakeGpu,
    FakeNvml,
    make_fake_nvml,
)
from tests.meter.waiting import wait_until

TICK_S = 0.03
NEVER_S = 1e6


def run(gpu: FakeGpu, until: Callable[[DeviceReading], object]) -> DeviceReading:
    """Meter one fake GPU until its reading fulfils a condition."""
    meter = NvmlMeter([gpu.uuid], FakeNvml(gpu))
    with meter:
        wait_until(lambda: until(meter.reading()[gpu.uuid]), "the reading")
    assert meter.faults() == ()
    return meter.reading()[gpu.uuid]


def test_ticks_carry_exactly_what_the_counter_showed() -> None:
    gpu = FakeGpu(power_w=lambda t_s: 250.0, tick_s=TICK_S)
    ticks = run(gpu, lambda reading: len(reading.ticks) >= 5).ticks
    per_tick_j = 250.0 * TICK_S
    counts = [(tick.energy_j - gpu.energy_at_start_mj / 1e3) / per_tick_j for tick in ticks]
    assert counts == pytest.approx([round(count) for count in counts], abs=1e-3)
    assert all(b > a for a, b in pairwise(counts))


def test_a_counter_that_does_not_move_gives_samples_and_no_tick() -> None:
    reading = run(FakeGpu(tick_s=NEVER_S), lambda reading: len(reading.samples) > 3)
    assert reading.ticks == []
    assert {(sample.power_w, sample.power_average_w) for sample in reading.samples} == {(300.0, 300.0)}


def test_a_limit_that_changes_while_it_runs_is_seen() -> None:
    gpu = FakeGpu()
    with NvmlMeter([gpu.uuid], FakeNvml(gpu)) as meter:
        gpu.power_limit_w = 400.0
        wait_until(lambda: meter.reading()[gpu.uuid].states[-1].power_limit_w == 400.0, "the new limit")
        states = meter.reading()[gpu.uuid].states
    assert limit_range_w(states, states[0].t_ns, states[-1].t_ns) == (400.0, 700.0)


def test_a_gpu_without_any_field_still_gives_its_energy() -> None:
    status = dict.fromkeys(FakeGpu().fields(0.0), pynvml.NVML_ERROR_NOT_SUPPORTED)
    reading = run(FakeGpu(tick_s=TICK_S, field_status=status), lambda reading: len(reading.ticks) >= 2)
    assert {(sample.power_w, sample.power_average_w) for sample in reading.samples} == {(None, None)}
    assert {state.power_cap_ns for state in reading.states} == {None}


def test_a_power_that_is_seen_again_is_kept_once() -> None:
    reading = run(FakeGpu(refresh_s=0.1), lambda reading: len(reading.samples) >= 4)
    stamps = [sample.field_t_us for sample in reading.samples if sample.field_t_us is not None]
    assert len(stamps) >= 4
    assert min(b - a for a, b in pairwise(stamps)) > 99_000


@pytest.mark.parametrize("stamp", [lambda t_us: t_us, lambda t_us: 0], ids=["of the query", "none"])
def test_power_stamped_by_the_query_or_not_at_all_is_all_kept(stamp: Callable[[int], int]) -> None:
    gpu = FakeGpu(stamp=stamp)
    reads = 0

    def count() -> None:
        nonlocal reads
        reads += 1

    gpu.before_read = count
    reading = run(gpu, lambda reading: len(reading.samples) >= 5)
    assert reads - 1 <= len(reading.samples) <= reads


def test_a_frozen_stamp_is_one_sample_until_the_power_changes() -> None:
    gpu = FakeGpu(tick_s=TICK_S, stamp=lambda t_us: 1)
    with NvmlMeter([gpu.uuid], FakeNvml(gpu)) as meter:
        wait_until(lambda: len(meter.reading()[gpu.uuid].ticks) > 3, "ticks")
        assert [sample.power_w for sample in meter.reading()[gpu.uuid].samples] == [300.0]
        gpu.power_w = lambda t_s: 400.0
        wait_until(lambda: len(meter.reading()[gpu.uuid].samples) > 1, "the new power")
        assert [sample.power_w for sample in meter.reading()[gpu.uuid].samples] == [300.0, 400.0]


@pytest.mark.parametrize("step_s", [-7200.0, 7200.0])
def test_a_step_of_the_wall_clock_changes_nothing(step_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(tick_s=TICK_S, refresh_s=0.03)
    nvml = FakeNvml(gpu)
    with NvmlMeter([gpu.uuid], nvml) as meter:
        wait_until(lambda: len(meter.reading()[gpu.uuid].ticks) > 4, "ticks")
        nvml.wall_step_s = step_s
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s + step_s)
        before = meter.reading()[gpu.uuid]
        wait_until(lambda: len(meter.reading()[gpu.uuid].ticks) > len(before.ticks) + 4, "more ticks")
        reading = meter.reading()[gpu.uuid]
    assert meter.faults() == ()
    assert len(reading.samples) > len(before.samples) + 2
    assert all(a.t_ns < b.t_ns for a, b in pairwise(reading.samples))
    window = common_window({"": reading}, reading.ticks[0].t_ns, reading.ticks[-2].t_ns)
    assert window is not None
    assert integrate_power_j(reading.samples, window.t0_ns, window.t1_ns) == pytest.approx(
        300.0 * (window.t1_ns - window.t0_ns) / 1e9
    )


def test_it_reads_in_a_process_of_its_own_as_in_this_one() -> None:
    """As the real library is read; the stand-in is made by the child."""
    gpu = FakeGpu()
    info = NvmlMeter([gpu.uuid], FakeNvml(gpu)).info
    with SampledMeter(info, NvmlSource((gpu.uuid,), make_fake_nvml), 0.02) as meter:
        wait_until(lambda: len(meter.reading()[gpu.uuid].ticks) >= 5, "ticks")
        reading = meter.reading()[gpu.uuid]
    assert meter.faults() == ()
    counts = [(tick.energy_j - gpu.energy_at_start_mj / 1e3) / (300.0 * 0.03) for tick in reading.ticks]
    assert counts == pytest.approx([round(count) for count in counts], abs=1e-3)
    assert {sample.power_w for sample in reading.samples} == {300.0}
    assert reading.states[0].temperature_c == 45.0


def test_after_a_counter_reset_there_are_samples_but_no_more_ticks() -> None:
    gpu = FakeGpu(tick_s=TICK_S)
    nvml = FakeNvml(gpu)
    with NvmlMeter([gpu.uuid], nvml) as meter:
        wait_until(lambda: meter.reading()[gpu.uuid].ticks, "a tick")
        gpu.reset_at_s = nvml.now_s()
        wait_until(meter.faults, "the fault")
        before = meter.reading()[gpu.uuid]
        wait_until(lambda: len(meter.reading()[gpu.uuid].samples) > len(before.samples) + 3, "more samples")
        assert meter.faults() == (Reason.COUNTER_RESET,)
        assert meter.reading()[gpu.uuid].ticks == before.ticks


def test_a_lost_gpu_stops_ticking_and_the_other_goes_on() -> None:
    lost, kept = FakeGpu(uuid="GPU-1", tick_s=TICK_S), FakeGpu(uuid="GPU-2", tick_s=TICK_S)
    nvml = FakeNvml(lost, kept)
    with NvmlMeter(["GPU-1", "GPU-2"], nvml) as meter:
        wait_until(lambda: meter.reading()["GPU-1"].ticks, "a tick")
        lost.lost_at_s = nvml.now_s()
        wait_until(meter.faults, "the fault")
        before = meter.reading()
        wait_until(lambda: len(meter.reading()["GPU-2"].ticks) > len(before["GPU-2"].ticks) + 2, "the other's ticks")
        assert meter.faults() == (Reason.NO_ENERGY,)
        assert meter.reading()["GPU-1"] == before["GPU-1"]


def test_gpus_are_read_in_parallel() -> None:
    """Each read waits until the other GPU is being read too: one thread for both would never get through."""
    together = threading.Barrier(2)
    met: list[int] = []

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):
            met.append(together.wait())

    gpus = [FakeGpu(uuid=f"GPU-{i}", tick_s=TICK_S) for i in range(2)]
    with NvmlMeter([gpu.uuid for gpu in gpus], FakeNvml(*gpus)):
        for gpu in gpus:
            gpu.before_read = meet
        try:
            wait_until(lambda: len(met) >= 6, "three reads of both at once")
        finally:
            together.abort()


def test_a_gpu_without_energy_counter_is_refused_and_nothing_is_left_open() -> None:
    nvml = FakeNvml(FakeGpu(uuid="GPU-1"), FakeGpu(uuid="GPU-2", has_energy=False))
    threads = threading.active_count()
    with pytest.raises(MeterError, match="GPU-2 has no energy counter"), NvmlMeter(["GPU-1", "GPU-2"], nvml):
        pass
    assert threading.active_count() == threads
    assert nvml.init_count == 0


@pytest.mark.parametrize(
    ("uuids", "nvml", "message"),
    [
        ([], FakeNvml(FakeGpu(uuid="GPU-1")), "no GPU to meter"),
        (["GPU-2"], FakeNvml(FakeGpu(uuid="GPU-1")), "no GPU GPU-2 on this machine"),
        (["GPU-1"], FakeNvml(FakeGpu(uuid="GPU-1", mig=True)), "MIG is on for GPU-1.*use a GPU with MIG off"),
        (["GPU-1"], FakeNvml(FakeGpu(uuid="GPU-1", lost_at_s=0)), "GPU is lost"),
        (
            ["GPU-1"],
            FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
            "no NVIDIA driver.*start the container with its GPUs$",
        ),
        (["GPU-1"], FakeNvml(init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH), "does not start.*mismatch"),
    ],
)
def test_what_cannot_be_metered_is_one_clear_error(uuids: list[str], nvml: FakeNvml, message: str) -> None:
    with pytest.raises(MeterError, match=message):
        NvmlMeter(uuids, nvml)
    assert nvml.init_count == 0


def test_a_gpu_that_knows_no_mig_is_fine() -> None:
    gpu = FakeGpu(mig=None)
    assert NvmlMeter([gpu.uuid], FakeNvml(gpu)).info.devices == (gpu.uuid,)


def test_info_names_devices_driver_and_the_stand_in() -> None:
    info = NvmlMeter(["GPU-2", "GPU-1"], FakeNvml(FakeGpu(uuid="GPU-1"), FakeGpu(uuid="GPU-2"))).info
    assert info.devices == ("GPU-2", "GPU-1")
    assert (info.device_name, info.driver_version) == ("NVIDIA H100 80GB HBM3", "580.00.fake")
    assert (info.boundary, info.evidence) == (Boundary.GPU, Evidence.SIMULATED)


def test_different_gpus_have_no_common_name() -> None:
    mixed = FakeNvml(FakeGpu(uuid="GPU-1"), FakeGpu(uuid="GPU-2", name="NVIDIA H200"))
    assert NvmlMeter(["GPU-1", "GPU-2"], mixed).info.device_name is None


def test_only_the_real_module_is_measured() -> None:
    assert _evidence(pynvml) is Evidence.MEASURED
    assert _evidence(FakeNvml()) is Evidence.SIMULATED


@pytest.mark.gpu
@pytest.mark.skipif(not visible_gpus(), reason="no NVIDIA GPU is visible")
def test_the_real_counter_and_the_real_power_agree() -> None:
    uuids = [gpu.uuid for gpu in visible_gpus()]
    with NvmlMeter(uuids) as meter:
        wait_until(lambda: all(len(r.ticks) >= 30 for r in meter.reading().values()), "30 ticks of every GPU")
        readings = meter.reading()
    assert meter.info.evidence is Evidence.MEASURED
    assert meter.faults() == ()
    for reading in readings.values():
        window = common_window({"": reading}, reading.ticks[0].t_ns, reading.ticks[-1].t_ns)
        assert window is not None
        integral_j = integrate_power_j(reading.samples, window.t0_ns, window.t1_ns)
        print(f"counter {window.energy_j:.2f} J, integral {integral_j} J, {window.power_w:.1f} W")
        print(reading.samples[:12], reading.states[:2], sep="\n")
        assert integral_j is not None
        assert integral_j == pytest.approx(window.energy_j, rel=0.2)
        limits_w = limit_range_w(reading.states, window.t0_ns, window.t1_ns)
        assert limits_w is not None
        assert 0 < window.power_w < 1.2 * limits_w[1]
