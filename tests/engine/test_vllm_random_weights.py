"""What the random weights are, as far as it can be told without torch; and that the script stands alone.

The filling itself needs torch, which is not in this environment. It was run on CPU tensors of every kind, and through
vLLM 0.24.0's own model construction for Llama, Qwen3 MoE and gpt-oss in bf16, fp8 and MXFP4.
"""

import ast
import logging
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.side import vllm_random_weights as weights
from pipeline.engine.vllm import VllmEngine

SOURCE = Path(weights.__file__)

E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What the low three bits of a nibble stand for; the fourth is the sign. Source: OCP Microscaling Formats v1.0."""

E8M0_BIAS = 127
"""A scale byte e stands for 2^(e - 127). Source: the same."""


def test_the_nibbles_of_mxfp4_dequantise_to_the_intended_spread() -> None:
    scale_ms = sum(4.0 ** (code - E8M0_BIAS) for code in weights.E8M0_CODES) / len(weights.E8M0_CODES)
    value_ms = sum(value**2 for value in E2M1_MAGNITUDES) / len(E2M1_MAGNITUDES)
    assert math.sqrt(scale_ms * value_ms) == pytest.approx(weights.SD, rel=1e-3)


def test_scale_bytes_are_reached_by_steps() -> None:
    for pick, code in enumerate(weights.E8M0_CODES):
        assert weights.E8M0_CODES[0] + sum(pick >= step for step in weights.E8M0_STEPS) == code


def test_fp8_codes_and_scale_dequantise_to_the_intended_spread() -> None:
    assert weights.FP8.sd * weights.FP8_SCALE.mean == pytest.approx(weights.SD)
    assert weights.FP8_MAX / weights.FP8.sd == 7.0  # clipped once in 10^11
    half = weights.FP8_SCALE.sd * math.sqrt(3)
    assert half / weights.FP8_SCALE.mean == pytest.approx(weights.FP8_SCALE_SPREAD)


def test_stored_spreads_are_those_of_the_distributions() -> None:
    codes = weights.E8M0_CODES
    mean = sum(codes) / len(codes)
    assert weights.EXPONENTS.mean == mean
    assert weights.EXPONENTS.sd == pytest.approx(math.sqrt(sum((code - mean) ** 2 for code in codes) / len(codes)))
    assert weights.NIBBLES.sd == pytest.approx(math.sqrt(sum((byte - 127.5) ** 2 for byte in range(256)) / 256))


@pytest.mark.parametrize(
    ("name", "dtype", "is_norm", "draw"),
    [
        ("model.layers.0.self_attn.qkv_proj.weight", "bfloat16", False, weights.WEIGHT),
        ("model.layers.0.self_attn.qkv_proj.bias", "bfloat16", False, weights.WEIGHT),
        ("model.layers.0.attn.sinks", "bfloat16", False, weights.WEIGHT),
        ("model.layers.3.mlp.gate.e_score_correction_bias", "float32", False, weights.WEIGHT),
        ("model.norm.weight", "bfloat16", True, weights.NORM_WEIGHT),
        ("model.norm.bias", "bfloat16", True, weights.WEIGHT),
        ("model.layers.0.mlp.experts.w13_weight", "uint8", False, weights.NIBBLES),
        ("model.layers.0.mlp.experts.w13_weight_scale", "uint8", False, weights.EXPONENTS),
        ("model.layers.0.mlp.experts.w2_weight_scale", "uint8", False, weights.EXPONENTS),
        ("model.layers.0.mlp.experts.w2_bias", "bfloat16", False, weights.WEIGHT),
        ("model.layers.0.mlp.down_proj.weight", "float8_e4m3fn", False, weights.FP8),
        ("model.layers.0.mlp.down_proj.weight_scale_inv", "float32", False, weights.FP8_SCALE),
        ("model.layers.0.mlp.experts.w13_weight_scale", "float32", False, weights.FP8_SCALE),
        ("model.layers.0.mlp.down_proj.input_scale", "float32", False, weights.ACTIVATION_SCALE),
        ("model.layers.0.mlp.experts.w13_input_scale", "float32", False, weights.ACTIVATION_SCALE),
        ("model.layers.0.self_attn.attn.k_scale", "float32", False, None),
        ("model.layers.0.self_attn.attn.prob_scale", "bfloat16", False, None),
    ],
)
def test_every_kind_of_parameter_has_its_draw(name: str, dtype: str, is_norm: bool, draw: weights.Draw | None) -> None:
    assert weights.draw_for(name, dtype, is_norm=is_norm) == draw


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.0.mlp.down_proj.qweight", "int32"),  # GPTQ
        ("model.layers.0.mlp.down_proj.weight_scale", "float8_e4m3fn"),  # NVFP4
        ("model.layers.0.mlp.down_proj.weight_scale_2", "float32"),  # NVFP4
        ("model.layers.0.mlp.down_proj.weight_scale", "float8_e8m0fnu"),
    ],
)
def test_an_unknown_kind_is_an_error_that_names_it(name: str, dtype: str) -> None:
    with pytest.raises(weights.RandomWeightsError, match=name):
        weights.draw_for(name, dtype, is_norm=False)


def test_a_parameter_that_was_never_met_is_an_error_that_names_it() -> None:
    with pytest.raises(weights.RandomWeightsError, match=r"2 parameters.*model\.a"):
        weights.Filler({"model.b", "model.a"}).finish()


@given(st.text(min_size=1), st.text(min_size=1))
def test_seeds_are_fixed_distinct_and_fit_a_generator(first: str, second: str) -> None:
    assert weights.seed_of(first, 0) == weights.seed_of(first, 0)
    assert 0 <= weights.seed_of(first, 0) < 2**63
    assert first == second or weights.seed_of(first, 0) != weights.seed_of(second, 0)
    assert weights.seed_of(first, 0) != weights.seed_of(first, 1)


def test_seeds_do_not_change_between_versions() -> None:
    assert weights.seed_of("model.norm.weight", 0) == 2321493755628185058


@pytest.mark.parametrize(
    ("size", "real", "padded", "expected"),
    [
        (5760, 2880, 2880, 5760),  # no padding
        (2 * 2944, 2880, 2944, 5760),  # gate and up rows
        (3072 // 2, 2880, 3072, 1440),  # two codes per byte
        (3072 // 32, 2880, 3072, 90),  # one scale per 32
        (384 // 32, 360, 384, 12),  # the last scale covers what is left
    ],
)
def test_padding_is_left_out(size: int, real: int, padded: int, expected: int) -> None:
    assert weights.real_size(size, real, padded) == expected


def test_the_script_imports_only_the_standard_library_until_it_runs() -> None:
    tree = ast.parse(SOURCE.read_text())
    roots = {
        name.split(".")[0]
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert roots <= sys.stdlib_module_names


def test_it_registers_in_the_main_process_and_in_spawned_ones_and_serves_in_the_first_only() -> None:
    guards = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    registering, serving = guards[-2:]
    assert ast.unparse(registering.test) == "__name__ in {'__main__', '__mp_main__'}"
    assert ast.unparse(registering.body[-1]) == "register_model_loader('tpw_random')(RandomWeightsLoader)"
    assert ast.unparse(serving.test) == "__name__ == '__main__'"
    assert ast.unparse(serving.body[-1]) == "main()"


def test_the_stored_description_names_what_was_drawn() -> None:
    assert f"sd {weights.SD:g}" in weights.WEIGHTS_INIT
    assert weights.WEIGHTS_INIT.format(3).endswith("seed 3")


def test_the_log_line_is_one_that_is_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        weights.Filler(set(), 3).finish()
    assert VllmEngine().constant_weights(caplog.messages) == 0
    assert "seed 3" in VllmEngine().effective_config(caplog.messages)["random_weights"]
