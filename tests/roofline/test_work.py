import dataclasses

import pytest

from pipeline.errors import ConfigError
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.work import Work, compute_rate_flops_per_s, work
from pipeline.study import Hardware
from tests.roofline import facts


def one(name: str, precision: str, gpu: Hardware, tp: int = 1, running: float = 1) -> Work:
    config = facts.engine_config(precision, tp)
    return work(facts.model(name), gpu, config, MeanLengths.equal(1, 10_000), running)


def test_experts_in_a_small_batch_are_read_only_where_needed() -> None:
    h100 = facts.hardware("h100")
    small, large = (one("gpt-oss-120b", "fp4", h100, running=running).expert_bytes for running in (1, 1000))
    assert large > 8 * small


def test_format_that_the_hardware_does_not_run_is_refused() -> None:
    model, config = facts.model("llama-3.1-8b"), facts.engine_config("fp4")
    with pytest.raises(ConfigError, match=r"is nvfp4, which h100 \(hopper\) does not run"):
        compute_rate_flops_per_s(model, facts.hardware("h100"), config)
    assert compute_rate_flops_per_s(model, facts.hardware("b200"), config) == 9e15


def test_mxfp4_runs_with_16_bit_activations_on_hopper_and_8_bit_on_blackwell() -> None:
    model, config = facts.model("gpt-oss-120b"), facts.engine_config("fp4")
    for name, precision in (("h100", "bf16"), ("b200", "fp8")):
        gpu = facts.hardware(name)
        assert compute_rate_flops_per_s(model, gpu, config) == gpu.flops_per_s[precision]


def test_tensor_parallelism_needs_a_link() -> None:
    gpu = dataclasses.replace(facts.hardware("h100"), link_bandwidth_bytes_per_s=None)
    one("llama-3.1-8b", "bf16", gpu)
    with pytest.raises(ConfigError, match=r"hardware\.link_bandwidth_bytes_per_s is not set for h100"):
        one("llama-3.1-8b", "bf16", gpu, tp=2)


def test_a_lone_request_reads_what_its_checkpoint_holds() -> None:
    found = one("llama-3.1-8b", "bf16", facts.hardware("h100"))
    table = 128256 * 4096 * 2
    assert found.weight_bytes == pytest.approx(16_060_522_496 - table, rel=1e-3)
    assert found.expert_bytes == 0
    assert found.num_exchanges == 0
    assert found.decode_flops == pytest.approx(2 * (8.03e9 - table / 2), rel=0.2)
