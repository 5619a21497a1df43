"""Where the parameters of a model sit, and what one token or one batch touches of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.study import Model


@dataclass(frozen=True, slots=True)
class Parts:
    """Parameters of a model, or their bytes, by part of the network.

    Attributes:
        embedding: Input table: looked up, never multiplied; 0 when tied to the output.
        output: Output projection to the vocabulary.
        attention: Attention, norms and routers: all that every token passes and that is no FFN.
        dense: FFNs that every token passes, shared experts included.
        experts: Routed experts.
    """

    embedding: float
    output: float
    attention: float
    dense: float
    experts: float


def parameters(model: Model) -> Parts:
    """Split a model's parameters; FFNs are gated (three matrices), attention is what remains.

    Raises:
        ConfigError: If FFNs and embeddings alone exceed `total_params`.
    """
    moe_layers = model.num_layers - model.num_dense_layers if model.num_experts else 0
    expert = 3 * model.hidden_size * model.expert_intermediate_size
    dense_layer = 3 * model.hidden_size * model.intermediate_size
    table = model.vocab_size * model.hidden_size
    embedding = 0 if model.tie_embeddings else table
    experts = moe_layers * model.num_experts * expert
    dense = (model.num_layers - moe_layers) * dense_layer + moe_layers * model.num_shared_experts * expert
    attention = model.total_params - embedding - table - experts - dense
    if attention <= 0:
        raise ConfigError(
            f"model.total_params={model.total_params} of {model.name} is less than its FFNs and embeddings hold "
            f"({model.total_params - attention}): correct the sizes in conf/model/{model.name}.yaml"
        )
    return Parts(embedding, table, attention, dense, experts)


def experts_touched(num_experts: int, num_experts_per_token: int, tokens: Any) -> Any:
    """Distinct experts of one layer that a batch of independently routed tokens is expected to need; arrays too."""
    return num_experts * (1 - np.power(1 - num_experts_per_token / num_experts, tokens))


def attended_token_layers(model: Model, context_tokens: float) -> float:
    """Sum over layers of the tokens kept and read for one request, sliding windows considered."""
    window = context_tokens if model.sliding_window_tokens is None else model.sliding_window_tokens
    full = model.num_layers - model.num_sliding_layers
    return full * context_tokens + model.num_sliding_layers * min(context_tokens, window)
