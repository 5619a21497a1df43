"""What a precision means on each GPU."""

import pytest

from pipeline.engine_config import EngineConfig
from pipeline.precision import ACTIVATIONS, formats
from pipeline.roofline.constants import COMPUTE_PRECISION, KV_BYTES, KV_BYTES_AUTO
from tests.roofline import facts


def meaning(model: str, hardware: str, weights: str, **axes: str) -> str:
    values = {"precision.weights": weights} | {key.replace("__", "."): value for key, value in axes.items()}
    found = formats(EngineConfig.from_axes("trtllm", values), facts.model(model), facts.hardware(hardware))
    return str(found)


@pytest.mark.parametrize(
    ("model", "hardware", "weights", "said"),
    [
        ("gpt-oss-120b", "h100", "fp4", "openai/gpt-oss-120b: mxfp4 weights, bf16 activations, bf16 KV cache"),
        ("gpt-oss-120b", "b200", "fp4", "openai/gpt-oss-120b: mxfp4 weights, mxfp8 activations, bf16 KV cache"),
        ("llama-3.3-70b", "h200", "fp8", "nvidia/Llama-3.3-70B-Instruct-FP8: fp8 weights, fp8 per tensor activations"),
        (
            "llama-3.3-70b",
            "b200",
            "fp4",
            "nvidia/Llama-3.3-70B-Instruct-NVFP4: nvfp4 weights, nvfp4 activations",
        ),
        (
            "deepseek-r1",
            "h200",
            "fp8",
            "deepseek-ai/DeepSeek-R1-0528: fp8_block weights, fp8 per 128 values",
        ),
        ("llama-3.3-70b", "h200", "fp4", "None"),
        ("gpt-oss-120b", "b200", "bf16", "None"),
    ],
)
def test_a_precision_is_a_checkpoint_and_what_the_gpu_makes_of_it(
    model: str, hardware: str, weights: str, said: str
) -> None:
    assert meaning(model, hardware, weights).startswith(said)


def test_the_experts_backend_decides_the_activations_of_mxfp4_on_blackwell_alone() -> None:
    config = {"precision.weights": "fp4", "engine.knobs.moe_config.backend": "TRITON"}
    for hardware, activations in (("b200", "fp8"), ("h100", "bf16")):
        found = formats(EngineConfig.from_axes("trtllm", config), facts.model("gpt-oss-120b"), facts.hardware(hardware))
        assert found is not None
        assert found.activations == activations


def test_a_kv_cache_that_is_asked_for_is_what_is_used() -> None:
    assert meaning("gpt-oss-120b", "h100", "fp4", precision__kv_cache="fp8").endswith("fp8 KV cache")


def test_the_roofline_computes_in_the_same_formats() -> None:
    assert {(weights, arch) for arch, kinds in COMPUTE_PRECISION.items() for weights in kinds} == set(ACTIVATIONS)
    for model in ("gpt-oss-120b", "llama-3.3-70b", "deepseek-r1"):
        for weights, checkpoint in facts.model(model).checkpoints.items():
            config = EngineConfig.from_axes("trtllm", {"precision.weights": weights})
            found = formats(config, facts.model(model), facts.hardware("b200"))
            assert found is not None
            assert KV_BYTES[found.kv_cache] == KV_BYTES_AUTO[checkpoint.format]
