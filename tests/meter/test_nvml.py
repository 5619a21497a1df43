import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pynvml
import pytest

from pipeline.errors import MeterError
from pipeline.meter.energy import common_window, integrate_power_j
from pipeline.meter.nvml import SAMPLES_PER_STATE, NvmlMeter, _evidence
from pipeline.meter.protocol import DeviceReading
from pipeline.meter.visible_gpus import visible_gpus
from pipeline.record import Boundary, Evidence, Reason
from tests.meter.fake_nvml import FakeGpu, FakeNvml
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
    assert reading.samples[1].power_w == 300.0
    assert reading.samples[1].power_average_w == 300.0


def test_state_is_read_with_every_tenth_sample() -> None:
    gpu = FakeGpu(tick_s=TICK_S, throttled_share=0.5, power_capped_share=0.25)
    reading = run(gpu, lambda reading: len(reading.throttle_ns) >= 2)
    with_state = [i for i, sample in enumerate(reading.samples) if sample.temperature_c is not None]
    assert with_state == list(range(0, len(reading.samples), SAMPLES_PER_STATE))
    assert (reading.samples[0].temperature_c, reading.samples[0].sm_clock_mhz) == (45.0, 1980.0)
    assert reading.power_limit_w == 700.0
    (_, throttle0_ns), (_, throttle1_ns) = reading.throttle_ns[:2]
    (_, cap0_ns), (_, cap1_ns) = reading.power_cap_ns[:2]
    assert throttle1_ns - throttle0_ns == pytest.approx(2 * (cap1_ns - cap0_ns), abs=4)
    assert throttle0_ns == pytest.approx(2 * cap0_ns + 2**40 + 11, abs=4)  # the three reasons are summed


def test_the_older_temperature_call_is_used_where_the_newer_is_missing() -> None:
    reading = run(FakeGpu(has_temperature_v=False), lambda reading: reading.samples)
    assert reading.samples[0].temperature_c == 45.0


@pytest.mark.parametrize("status", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_UNKNOWN])
def test_a_power_field_with_an_error_status_is_none_and_never_0(status: int) -> None:
    gpu = FakeGpu(tick_s=TICK_S, field_status={pynvml.NVML_FI_DEV_POWER_INSTANT: status})
    reading = run(gpu, lambda reading: len(reading.ticks) >= 2)
    assert {sample.power_w for sample in reading.samples} == {None}
    assert {sample.power_average_w for sample in reading.samples} == {300.0}


def test_a_gpu_without_any_field_still_gives_its_energy() -> None:
    fields = FakeGpu().fields(0.0)
    gpu = FakeGpu(tick_s=TICK_S, field_status=dict.fromkeys(fields, pynvml.NVML_ERROR_NOT_SUPPORTED))
    reading = run(gpu, lambda reading: len(reading.ticks) >= 2)
    assert {sample.power_w for sample in reading.samples} == {None}
    assert (reading.throttle_ns, reading.power_cap_ns) == ([], [])


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
        (["GPU-1"], FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), "no NVIDIA driver.*hardware=cpu"),
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
        print(f"counter {window.energy_j:.2f} J, integral {integral_j} J, {window.power_w:.1f} W, {reading.samples[0]}")
        assert integral_j is not None
        assert integral_j == pytest.approx(window.energy_j, rel=0.2)
        assert reading.power_limit_w is not None
        assert 0 < window.power_w < 1.2 * reading.power_limit_w
