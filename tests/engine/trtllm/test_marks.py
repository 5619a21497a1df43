"""What a row says of a config that changes the answers, or guesses at random text."""

import pytest

from pipeline.engine.trtllm.marks import LOSSY, marks
from pipeline.engine_config import EngineConfig, Value
from pipeline.vocabulary import Reason


def of(**knobs: Value) -> tuple[Reason, ...]:
    axes = {f"engine.knobs.{name.replace('__', '.')}": value for name, value in knobs.items()}
    return marks(EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", **axes}))


def test_a_plain_config_says_nothing() -> None:
    assert of(moe_config__backend="TRTLLM", allreduce_strategy="NCCL") == ()


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_a_lossy_setting_is_said_and_its_neighbour_is_not(name: str) -> None:
    wanted = LOSSY[name]
    assert of(**{name.replace(".", "__"): "anything" if wanted is None else wanted}) == (Reason.LOSSY_SETTING,)
    if wanted is not None:
        assert of(**{name.replace(".", "__"): False if wanted is True else "0"}) == ()


def test_speculation_is_said_for_prompts_are_random() -> None:
    assert of(speculative_config__decoding_type="NGram") == (Reason.DRAFTS_OF_RANDOM_TEXT,)
    both = of(speculative_config__decoding_type="MTP", speculative_config__use_relaxed_acceptance_for_thinking=True)
    assert both == (Reason.DRAFTS_OF_RANDOM_TEXT, Reason.LOSSY_SETTING)
