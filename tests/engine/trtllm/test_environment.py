import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.trtllm.environment import SWITCHES, environment, problem
from pipeline.engine.trtllm.marks import marks
from pipeline.engine_config import EngineConfig, Value
from pipeline.vocabulary import Reason


def config(**knobs: Value) -> EngineConfig:
    """A config with environment knobs."""
    values: dict[str, Value] = {"precision.weights": "fp4", "engine.knobs.stream_interval": 1}
    values |= {f"engine.knobs.env.{name}": value for name, value in knobs.items()}
    return EngineConfig.from_axes("trtllm", values)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_takes_its_values_and_says_where_it_is_read(name: str) -> None:
    switch = SWITCHES[name]
    for value in switch.values or ("1", "2048"):
        assert problem(f"env.{name}", value) is None
    if switch.default is not None:
        assert problem(name, switch.default) is None
    assert problem(name, "no such value") is not None
    assert switch.source
    assert "|" not in switch.source + switch.note  # stands in a table of the documentation


@pytest.mark.parametrize("value", [1, True, "1", 0, False])
def test_a_switch_may_be_written_in_any_way_yaml_has(value: Value) -> None:
    assert problem("env.TRTLLM_ENABLE_PDL", value) is None


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "", "much"])
def test_a_size_is_a_whole_number_from_one_on(value: Value) -> None:
    assert problem("TRTLLM_MOE_A2A_WORKSPACE_MB", value) == (
        f"engine.knobs.env.TRTLLM_MOE_A2A_WORKSPACE_MB={1 if value is True else value}: takes a whole number from 1 "
        "on; set one of these"
    )


def test_a_wrong_value_is_told_the_right_ones() -> None:
    assert problem("env.OVERRIDE_QUANT_ALGO", "FP8") == (
        "engine.knobs.env.OVERRIDE_QUANT_ALGO=FP8: takes W4A16_MXFP4, W4A8_MXFP4_FP8, W4A8_MXFP4_MXFP8; set one of "
        "these"
    )


def test_an_unknown_one_is_told_the_nearest_and_where_it_belongs() -> None:
    message = problem("env.TRTLLM_ENABLE_PLD", "1")
    assert message is not None
    assert message.startswith("engine.knobs.env.TRTLLM_ENABLE_PLD: is none of the switches worth turning")
    assert "TRTLLM_ENABLE_PDL" in message
    assert "engine.env" in message
    assert "engine.allow_unknown=true" in message


@pytest.mark.parametrize("value", [1, True, "1"])
def test_answers_sent_back_in_fewer_bits_are_marked_however_it_is_written(value: Value) -> None:
    assert marks(config(TRTLLM_MOE_USE_LOW_PRECISION_COMBINE=value)) == (Reason.LOSSY_SETTING,)
    assert marks(config(TRTLLM_MOE_USE_LOW_PRECISION_COMBINE="0")) == ()


@given(st.text(max_size=30), st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=10)))
def test_any_name_and_value_has_an_answer(name: str, value: Value) -> None:
    message = problem(name, value)
    assert message is None or message.startswith("engine.knobs.env.")


def test_the_environment_of_a_config_is_text_and_without_its_arguments() -> None:
    assert environment(config(TRTLLM_ENABLE_PDL=True, TRTLLM_MOE_A2A_WORKSPACE_MB=2048, NCCL_GRAPH_REGISTER="0")) == {
        "NCCL_GRAPH_REGISTER": "0", "TRTLLM_ENABLE_PDL": "1", "TRTLLM_MOE_A2A_WORKSPACE_MB": "2048",
    }  # fmt: skip
    assert environment(config()) == {}
