"""Do the shipped facts about models and hardware agree with each other?"""

from pathlib import Path

import pytest

from pipeline.roofline.architecture import parameters
from pipeline.roofline.constants import BYTES_PER_PARAM
from pipeline.study import Hardware, Model
from tests.roofline import facts

MODELS = [facts.model(path.stem) for path in sorted(Path(facts.CONF, "model").glob("*.yaml"))]
HARDWARE = [facts.hardware(path.stem) for path in sorted(Path(facts.CONF, "hardware").glob("*.yaml"))]
GPUS = [hardware for hardware in HARDWARE if hardware.kind == "gpu"]

MLA_ATTENTION_PARAMS = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
"""One layer of DeepSeek-V3 attention: query down and up, latent down and up, output. Source: its config.json."""

DEVICE_NAMES = {
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA B300 SXM6 AC": "b300",
    "NVIDIA GB200": "gb200_nvl72",
    "NVIDIA GB300": "gb300_nvl72",
    "NVIDIA H100 PCIe": None,
    "NVIDIA H100 NVL": None,
    "NVIDIA A100-SXM4-80GB": None,
}
"""As nvidia-smi prints them, with the hardware each must be taken for."""


def test_all_that_the_tool_promises_is_there() -> None:
    names = {"tiny-llama", "gpt-oss-20b", "gpt-oss-120b", "llama-3.1-8b", "llama-3.3-70b", "qwen3-235b-a22b"}
    assert {model.name for model in MODELS} >= names | {"deepseek-r1"}
    assert {hardware.name for hardware in HARDWARE} >= {"cpu", *filter(None, DEVICE_NAMES.values())}


@pytest.mark.parametrize("kind", ["model", "hardware"])
def test_files_carry_the_name_of_what_they_hold(kind: str) -> None:
    values: list[Model] | list[Hardware] = MODELS if kind == "model" else HARDWARE
    stems = {path.stem for path in Path(facts.CONF, kind).glob("*.yaml")}
    assert {value.name for value in values} == stems


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_and_checkpoint_says_where_its_facts_come_from(model: Model) -> None:
    assert len(model.source) > 20
    assert model.checkpoints
    assert model.engines
    assert all(len(checkpoint.source) > 20 for checkpoint in model.checkpoints.values())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_total_parameters_follow_from_the_shapes(model: Model) -> None:
    part = parameters(model)
    heads = 2 * model.num_heads + 2 * model.num_kv_heads
    layer = MLA_ATTENTION_PARAMS if model.mla_kv_dim else model.hidden_size * model.head_dim * heads
    attention = model.num_layers * (layer + model.hidden_size * model.num_experts)
    assert part.attention == pytest.approx(attention, rel=0.06)
    derived = attention + part.embedding + part.output + part.dense + part.experts
    assert derived == pytest.approx(model.total_params, rel=0.03)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_active_parameters_are_what_a_token_passes(model: Model) -> None:
    part = parameters(model)
    routed = model.num_experts_per_token / model.num_experts if model.num_experts else 0
    without_input_table = part.output + part.attention + part.dense + part.experts * routed
    assert without_input_table * 0.99 <= model.active_params <= (without_input_table + part.embedding) * 1.01
    assert model.active_params <= model.total_params


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_checkpoint_sizes_follow_from_parameters_and_format_within_3_percent(model: Model) -> None:
    part = parameters(model)
    for checkpoint in model.checkpoints.values():
        routed, other = BYTES_PER_PARAM[checkpoint.format]
        tables = (part.embedding + part.output) * max(2.0, other)
        expected = part.experts * routed + (part.attention + part.dense) * other + tables
        assert checkpoint.weight_bytes == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("model", [m for m in MODELS if m.hf_config], ids=lambda model: model.name)
def test_published_config_says_the_same(model: Model) -> None:
    published = model.hf_config or {}
    layers = published.get("layer_types", [])
    assert published["num_hidden_layers"] == model.num_layers == (len(layers) or model.num_layers)
    assert published["hidden_size"] == model.hidden_size
    assert published["num_attention_heads"] == model.num_heads
    assert published["num_key_value_heads"] == model.num_kv_heads
    assert published.get("head_dim", model.hidden_size // model.num_heads) == model.head_dim
    assert published["vocab_size"] == model.vocab_size
    assert published["tie_word_embeddings"] == model.tie_embeddings
    assert published["max_position_embeddings"] == model.max_context_tokens
    assert published.get("num_local_experts", published.get("num_experts", 0)) == model.num_experts
    assert published.get("num_experts_per_tok", 0) == model.num_experts_per_token
    assert layers.count("sliding_attention") == model.num_sliding_layers
    assert published.get("sliding_window") == model.sliding_window_tokens


def test_only_the_generated_model_defaults_to_random_weights() -> None:
    assert {model.name for model in MODELS if model.weights_default == "random"} == {"tiny-llama"}


@pytest.mark.parametrize("hardware", HARDWARE, ids=lambda hardware: hardware.name)
def test_every_hardware_says_where_its_facts_come_from(hardware: Hardware) -> None:
    assert len(hardware.source) > 20


@pytest.mark.parametrize("hardware", GPUS, ids=lambda hardware: hardware.name)
def test_gpu_limits_are_set_and_ordered(hardware: Hardware) -> None:
    assert hardware.memory_bytes is not None
    assert hardware.memory_bandwidth_bytes_per_s is not None
    assert hardware.link_bandwidth_bytes_per_s is not None
    assert hardware.link_bandwidth_bytes_per_s < hardware.memory_bandwidth_bytes_per_s
    assert hardware.idle_power_w is not None
    assert hardware.board_power_w is not None
    assert hardware.provisioned_kw_per_gpu is not None
    assert 0 < hardware.idle_power_w < hardware.board_power_w / 2
    assert hardware.board_power_w < hardware.provisioned_kw_per_gpu * 1000
    assert hardware.flops_per_s["fp8"] == 2 * hardware.flops_per_s["bf16"]
    assert ("fp4" in hardware.flops_per_s) == (hardware.arch == "blackwell")
    assert hardware.num_gpus == (72 if hardware.name.endswith("nvl72") else 8)


@pytest.mark.parametrize("device", DEVICE_NAMES)
def test_a_device_name_is_taken_for_one_hardware_only(device: str) -> None:
    matches = [hardware.name for hardware in GPUS if hardware.nvml_name and hardware.nvml_name in device]
    expected = DEVICE_NAMES[device]
    assert matches == ([] if expected is None else [expected])


def test_cpu_watts_are_declared_and_say_so() -> None:
    cpu = facts.hardware("cpu")
    assert cpu.declared_idle_w
    assert cpu.declared_busy_w_per_core
    assert "declared, not measured" in cpu.source
    assert cpu.num_gpus == 0
    assert not cpu.flops_per_s
