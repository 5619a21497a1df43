import pytest

from pipeline.cli import host
from pipeline.cli.host import prepare, with_default_knobs
from pipeline.cli.sweep import sweep
from pipeline.errors import ConfigError
from pipeline.meter.visible_gpus import Gpu
from pipeline.repeat import only_config

SERVED = ("model=gpt-oss-120b", "engine=trtllm", "hardware=h100")


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = tuple(
        Gpu(uuid=f"GPU-{n}", name="NVIDIA H100 80GB HBM3", index=n, memory_bytes=80 * 2**30, used_bytes=0)
        for n in range(2)
    )
    monkeypatch.setattr(host, "visible_gpus", lambda: gpus)


def test_more_gpus_than_are_visible_are_refused_before_the_first_trial() -> None:
    with pytest.raises(ConfigError, match=r"^hardware\.num_gpus=8: 2 visible here .*leave it out, or add rig=modelled"):
        prepare([*SERVED, "hardware.num_gpus=8"])


@pytest.mark.parametrize("more", [(), ("hardware.num_gpus=8", "parallelism=single"), ("hardware.num_gpus=1",)])
def test_what_no_layout_needs_may_be_missing(more: tuple[str, ...]) -> None:
    assert prepare([*SERVED, *more]).study.engine.name == "trtllm"


def test_a_larger_machine_may_be_modelled() -> None:
    assert prepare([*SERVED, "hardware.num_gpus=8", "rig=modelled"]).study.hardware.num_gpus == 8


def test_one_config_leaves_the_knobs_that_nobody_named_to_the_engine() -> None:
    words = [*SERVED, "precision=fp4", "precision.kv_cache=auto", "parallelism=single", "batching=default"]
    prepared = with_default_knobs(prepare([*words, "engine.knobs.num_postprocess_workers=4"]))
    config = only_config(prepared.study)
    assert config.knobs == {"num_postprocess_workers": 4, "cuda_graph_config.enable_padding": True}
    assert any(note.startswith("left to the engine: moe_config.backend") for note in prepared.notes)
    several = with_default_knobs(prepare([*words, "engine.knobs.moe_config.backend=[null,CUTLASS]"]))
    with pytest.raises(ConfigError, match=r"moe_config\.backend=\[null,CUTLASS\]: one configuration is measured"):
        only_config(several.study)


def test_a_sweep_whose_rows_could_not_be_scored_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine\.instrumented=true: .*use tpw measure"):
        sweep([*SERVED, "rig=modelled", "engine.instrumented=true"])
