import sys

import pynvml
import pytest

from pipeline.errors import ConfigError, MeterError
from pipeline.meter.visible_gpus import named_gpus, visible_gpus
from tests.meter.fake_nvml import FakeGpu, FakeNvml

UUIDS = ("GPU-8932f937-0001", "GPU-8932f937-0002", "GPU-77777777-0003")
NVML = FakeNvml(*(FakeGpu(uuid=uuid) for uuid in UUIDS))


def indices(environ: dict[str, str], nvml: FakeNvml = NVML) -> list[int]:
    return [gpu.index for gpu in visible_gpus(nvml, environ)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        (UUIDS[1], [1]),
        ("GPU-7", [2]),
        (f"GPU-777,{UUIDS[0]}", [2, 0]),
        (f"{UUIDS[2]},0", [2, 0]),
        ("", []),
        ("-1", []),
    ],
)
def test_an_allowed_value_selects_in_its_order(value: str, expected: list[int]) -> None:
    assert indices({"CUDA_VISIBLE_DEVICES": value}) == expected


def test_without_the_variable_all_gpus_are_visible() -> None:
    gpus = visible_gpus(NVML, {})
    assert [gpu.uuid for gpu in gpus] == list(UUIDS)
    assert gpus[0].name == "NVIDIA H100 80GB HBM3"
    assert gpus[0].memory_bytes == 80 * 2**30


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "'3' is no GPU of this machine; allowed: 0 .GPU-8932f937-0001"),
        ("0,-1,1", "'-1' is no GPU"),
        ("0,,1", "'' is no GPU"),
        ("two", "'two' is no GPU"),
        ("GPU-99", "'GPU-99' is no GPU"),
        ("GPU-8932f937", "'GPU-8932f937' is the beginning of several"),
        ("1,1", "names a GPU twice"),
        (f"1,{UUIDS[1]}", "names a GPU twice"),
    ],
)
def test_what_cuda_would_silently_cut_off_is_an_error(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        visible_gpus(NVML, {"CUDA_VISIBLE_DEVICES": value})


def test_a_mig_slice_is_refused() -> None:
    with pytest.raises(MeterError, match="MIG off"):
        visible_gpus(NVML, {"CUDA_VISIBLE_DEVICES": "MIG-GPU-8932f937/1/0"})


def test_an_index_among_different_gpus_needs_the_bus_order() -> None:
    mixed = FakeNvml(FakeGpu(uuid="GPU-1", name="NVIDIA T400"), FakeGpu(uuid="GPU-2"))
    with pytest.raises(ConfigError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_gpus(mixed, {"CUDA_VISIBLE_DEVICES": "1"})
    assert indices({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, mixed) == [1]
    assert indices({"CUDA_VISIBLE_DEVICES": "GPU-2"}, mixed) == [1]


@pytest.mark.parametrize(("names", "expected"), [(["2", "0"], [2, 0]), ([UUIDS[1]], [1]), (["GPU-777", " 1 "], [2, 1])])
def test_gpus_can_be_named_whatever_is_visible(
    names: list[str], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [gpu.index for gpu in named_gpus(names, NVML)] == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "7"], "gpus=0,7: '7' is no GPU of this machine; allowed: 0 .GPU-8932f937-0001"),
        (["GPU-8932f937"], "gpus=GPU-8932f937: 'GPU-8932f937' is the beginning of several"),
        (["1", UUIDS[1]], "gpus=1,GPU-8932f937-0002 names a GPU twice"),
        ([""], "gpus=: '' is no GPU"),
        ([], "gpus= names no GPU; allowed: 0"),
    ],
)
def test_a_wrong_name_is_an_error(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_gpus(names, NVML)


def test_a_mig_slice_cannot_be_named() -> None:
    with pytest.raises(MeterError, match="gpus=MIG-1: energy is metered per board"):
        named_gpus(["MIG-1"], NVML)


def test_memory_that_the_board_does_not_report_is_none() -> None:
    (gpu,) = visible_gpus(FakeNvml(FakeGpu(memory_bytes=None)), {})
    assert gpu.memory_bytes is None


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_machine_without_driver_has_no_gpus(code: int) -> None:
    assert visible_gpus(FakeNvml(init_error=code), {"CUDA_VISIBLE_DEVICES": "0"}) == ()
    assert named_gpus(["0"], FakeNvml(init_error=code)) == ()


def test_a_machine_without_the_python_package_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert visible_gpus(None, {}) == ()


def test_a_broken_driver_is_an_error_not_an_empty_machine() -> None:
    with pytest.raises(MeterError, match="does not start"):
        visible_gpus(FakeNvml(init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH), {})


def test_nothing_is_left_open() -> None:
    nvml = FakeNvml(FakeGpu())
    visible_gpus(nvml, {})
    assert nvml.init_count == 0
