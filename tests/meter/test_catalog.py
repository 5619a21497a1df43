from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pynvml
import pytest

from pipeline.errors import ConfigError, MeterError
from pipeline.meter.catalog import open_meter
from pipeline.study import Hardware, Study
from tests.meter.fake_nvml import FakeGpu, FakeNvml
from tests.meter.fake_powercap import add_zone

CPU = Hardware(
    name="cpu",
    source="a test",
    kind="cpu",
    arch="cpu",
    num_gpus=0,
    declared_idle_w=10.0,
    declared_busy_w_per_core=5.0,
)
H100 = Hardware(name="h100", source="a test", kind="gpu", arch="hopper", num_gpus=2, nvml_name="H100")
H200 = Hardware(name="h200", source="a test", kind="gpu", arch="hopper", num_gpus=2, nvml_name="H200")
NVML = FakeNvml(FakeGpu(uuid="GPU-1"), FakeGpu(uuid="GPU-2"), FakeGpu(uuid="GPU-3", name="NVIDIA GH200 480GB"))


def make_study(hardware: Hardware, meter: Literal["auto", "nvml", "rapl", "declared"] = "auto") -> Study:
    """What a meter is chosen by; nothing else of a study may matter."""
    return cast("Study", SimpleNamespace(hardware=hardware, meter=meter))


@pytest.mark.parametrize("meter", ["auto", "nvml"])
def test_a_gpu_is_metered_by_nvml_over_the_first_ones_visible(meter: Literal["auto", "nvml"]) -> None:
    study = make_study(H100, meter)
    assert open_meter(study, 1, {}, nvml=NVML).info.devices == ("GPU-1",)
    assert open_meter(study, 2, {"CUDA_VISIBLE_DEVICES": "GPU-2,GPU-1"}, nvml=NVML).info.devices == ("GPU-2", "GPU-1")


@pytest.mark.parametrize("meter", ["auto", "declared"])
def test_a_cpu_is_metered_by_its_declared_watts(meter: Literal["auto", "declared"]) -> None:
    info = open_meter(make_study(CPU, meter), 0, {}).info
    assert (info.name, info.devices) == ("declared", ("cpu",))
    assert "10 W + 5 W" in info.description


def test_a_cpu_can_be_metered_by_rapl(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:0", "package-0")
    assert open_meter(make_study(CPU, "rapl"), 0, {}, powercap_root=tmp_path).info.devices == ("package-0",)


@pytest.mark.parametrize(("hardware", "meter"), [(H100, "rapl"), (H100, "declared"), (CPU, "nvml")])
def test_a_meter_that_does_not_cover_the_hardware_is_refused(
    hardware: Hardware, meter: Literal["nvml", "rapl", "declared"]
) -> None:
    with pytest.raises(ConfigError, match=f"meter={meter} does not meter hardware={hardware.name}; use meter="):
        open_meter(make_study(hardware, meter), 1, {}, nvml=NVML)


@pytest.mark.parametrize("hardware", [replace(CPU, declared_idle_w=None), replace(CPU, declared_busy_w_per_core=None)])
def test_declared_watts_must_be_set(hardware: Hardware) -> None:
    with pytest.raises(ConfigError, match=r"=None.*set both"):
        open_meter(make_study(hardware), 0, {})


def test_a_gpu_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hardware=h200 is a H200, but this machine has NVIDIA H100 80GB HBM3"):
        open_meter(make_study(H200), 1, {}, nvml=NVML)


def test_every_reserved_gpu_is_checked_and_a_gh200_is_no_h200() -> None:
    with pytest.raises(ConfigError, match=r"NVIDIA GH200 480GB \(GPU 2\)"):
        open_meter(make_study(H200), 1, {"CUDA_VISIBLE_DEVICES": "GPU-3"}, nvml=NVML)
    with pytest.raises(ConfigError, match=r"NVIDIA GH200 480GB \(GPU 2\)"):
        open_meter(make_study(H100), 3, {}, nvml=NVML)


def test_without_a_name_to_check_nothing_is_metered() -> None:
    with pytest.raises(ConfigError, match=r"set hardware.nvml_name to a part of 'NVIDIA H100 80GB HBM3'"):
        open_meter(make_study(replace(H100, nvml_name=None)), 1, {}, nvml=NVML)


def test_too_few_gpus_is_an_error_that_says_what_is_visible() -> None:
    with pytest.raises(ConfigError, match=r"needs 2 GPUs, 1 visible \(CUDA_VISIBLE_DEVICES=GPU-1\)"):
        open_meter(make_study(H100), 2, {"CUDA_VISIBLE_DEVICES": "GPU-1"}, nvml=NVML)


@pytest.mark.parametrize(
    ("nvml", "environ"),
    [
        (FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), {}),
        (FakeNvml(), {}),
        (NVML, {"CUDA_VISIBLE_DEVICES": ""}),
    ],
)
def test_no_gpu_is_an_error_never_an_empty_meter(nvml: FakeNvml, environ: dict[str, str]) -> None:
    with pytest.raises(MeterError, match=r"no GPU is visible here.*start the container with its GPUs$"):
        open_meter(make_study(H100), 1, environ, nvml=nvml)


def test_an_engine_is_pinned_to_the_metered_gpus_by_their_place_on_the_bus() -> None:
    info = open_meter(make_study(H100), 2, {"CUDA_VISIBLE_DEVICES": "GPU-2,GPU-1"}, nvml=NVML).info
    assert info.pin == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}
    assert open_meter(make_study(CPU), 1, {}).info.pin == {}


def test_a_gpu_that_somebody_else_uses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.meter.catalog.RELEASE_S", 0.0)
    monkeypatch.setattr("pipeline.meter.catalog.RELEASE_POLL_S", 0.0)
    nvml = FakeNvml(FakeGpu(uuid="GPU-1"), FakeGpu(uuid="GPU-2", used_bytes=40 * 2**30))
    open_meter(make_study(H100), 1, {}, nvml=nvml)
    with pytest.raises(MeterError, match=r"GPU 1 \(GPU-2\) holds 40 GiB of another process.*CUDA_VISIBLE_DEVICES"):
        open_meter(make_study(H100), 2, {}, nvml=nvml)


def test_memory_that_an_engine_is_just_letting_go_of_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(uuid="GPU-1", used_bytes=40 * 2**30)
    monkeypatch.setattr("pipeline.meter.catalog.time.sleep", lambda _: setattr(gpu, "used_bytes", 0))
    assert open_meter(make_study(H100), 1, {}, nvml=FakeNvml(gpu)).info.devices == ("GPU-1",)


def test_named_gpus_are_metered_in_use_and_unpinned() -> None:
    nvml = FakeNvml(FakeGpu(uuid="GPU-1"), FakeGpu(uuid="GPU-2", used_bytes=40 * 2**30))
    environ = {"CUDA_VISIBLE_DEVICES": "0"}
    info = open_meter(make_study(H100), 1, environ, uuids=["1", "GPU-1"], nvml=nvml).info
    assert (info.devices, info.pin) == (("GPU-2", "GPU-1"), {})


@pytest.mark.parametrize(
    ("hardware", "uuids", "message"),
    [
        (H100, ["0", "2"], r"this machine has NVIDIA GH200 480GB \(GPU 2\); use the hardware=.*, or gpus= to choose"),
        (H100, ["9"], "gpus=9: '9' is no GPU of this machine"),
        (H100, ["0", "GPU-1"], "gpus=0,GPU-1 names a GPU twice"),
        (H100, [], "gpus= names no GPU"),
        (CPU, ["0"], "gpus=0 names GPUs, hardware=cpu has none; leave one out"),
    ],
)
def test_gpus_that_cannot_be_named_are_an_error(hardware: Hardware, uuids: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_meter(make_study(hardware), 1, {}, uuids=uuids, nvml=NVML)


def test_naming_a_gpu_where_there_is_none_is_an_error() -> None:
    with pytest.raises(MeterError, match=r"no GPU is visible here.*start the container with its GPUs$"):
        open_meter(make_study(H100), 1, {}, uuids=["0"], nvml=FakeNvml())
