import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.roofline.architecture import attended_token_layers, experts_touched, parameters
from tests.roofline import facts


@given(
    num_experts=st.integers(2, 512),
    share=st.floats(0.01, 1),
    tokens=st.floats(1, 1e5),
    more=st.floats(0, 1e5),
)
def test_experts_touched_grows_with_the_batch_and_stays_bounded(
    num_experts: int, share: float, tokens: float, more: float
) -> None:
    per_token = max(1, int(share * num_experts))
    touched = experts_touched(num_experts, per_token, tokens)
    assert per_token - 1e-6 <= touched <= min(num_experts, per_token * tokens) + 1e-6
    assert experts_touched(num_experts, per_token, tokens + more) >= touched - 1e-6


def test_one_token_touches_exactly_its_own_experts() -> None:
    assert experts_touched(128, 4, 1) == pytest.approx(4)


def test_parts_add_up_to_the_model() -> None:
    for name in ("llama-3.1-8b", "gpt-oss-120b", "deepseek-r1"):
        model = facts.model(name)
        assert sum(dataclasses.astuple(parameters(model))) == model.total_params


def test_tied_embeddings_are_counted_once() -> None:
    model = facts.model("llama-3.1-8b")
    table = model.vocab_size * model.hidden_size
    fewer = model.total_params - table
    tied = parameters(dataclasses.replace(model, tie_embeddings=True, total_params=fewer, active_params=fewer))
    assert (tied.embedding, tied.output, tied.attention) == (0, table, parameters(model).attention)


def test_sizes_that_contradict_each_other_are_refused() -> None:
    model = dataclasses.replace(facts.model("llama-3.1-8b"), total_params=10**9, active_params=10**9)
    with pytest.raises(ConfigError, match="total_params=1000000000"):
        parameters(model)


def test_sliding_layers_keep_no_more_than_their_window() -> None:
    model = facts.model("gpt-oss-120b")
    assert attended_token_layers(model, 100) == 36 * 100
    assert attended_token_layers(model, 10_000) == 18 * 10_000 + 18 * 128
