"""What one iteration of an engine has to do on each device: bytes, operations and exchanges, before any efficiency.

Values are numbers, or arrays of one shape: of the loads of one configuration, or of points of many models.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.roofline import constants
from pipeline.roofline.architecture import attended_token_layers, experts_touched, parameters
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.memory import attention_ranks, checkpoint, engine_defaults, kv_bytes, published, weight_bytes
from pipeline.study import Hardware, Model

Numbers = Any
"""A float, or an array of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One iteration in steady state, in which every running request gets one token, on one device.

    With pipeline stages it is that of one micro-batch on one stage; `num_stages` of them pass one after the other.

    Attributes:
        batch: Requests that run.
        prompts: Prompts that are processed in an iteration, on average.
        iterations: Iterations that a token takes: more than one where prompts fill them.
        weight_bytes: Weights that every token passes, read once.
        expert_bytes: Routed experts that the batch is expected to touch.
        kv_bytes: KV cache read.
        decode_flops: Of the running requests.
        prefill_flops: Of prompts, but for their experts.
        expert_prefill_flops: Of prompts, in routed experts.
        num_layers: Layers of a stage.
        num_fp8_expert_layers: Of these, mixtures of experts with FP8 weights in blocks.
        num_exchanges: Exchanges between devices.
        exchange_bytes: Bytes that a device sends in all of them.
        num_stages: Pipeline stages.
        is_divided_by_rank: 1 where vLLM's attention ranks wait for each other's prompts, else 0.
        is_hopper: 1 on Hopper, else 0.
        bandwidth_bytes_per_s: Published, of one device.
        rate_flops_per_s: Published tensor-core rate of the checkpoint's format.
        link_bytes_per_s: Published; 1 where there are no exchanges.
        idle_w: Power of a board that does nothing.
        limit_w: Power limit of a board.
    """

    batch: Numbers
    prompts: Numbers
    iterations: Numbers
    weight_bytes: Numbers
    expert_bytes: Numbers
    kv_bytes: Numbers
    decode_flops: Numbers
    prefill_flops: Numbers
    expert_prefill_flops: Numbers
    num_layers: Numbers
    num_fp8_expert_layers: Numbers
    num_exchanges: Numbers
    exchange_bytes: Numbers
    num_stages: Numbers
    is_divided_by_rank: Numbers
    is_hopper: Numbers
    bandwidth_bytes_per_s: Numbers
    rate_flops_per_s: Numbers
    link_bytes_per_s: Numbers
    idle_w: Numbers
    limit_w: Numbers


def stack(works: list[Work]) -> Work:
    """The same of many points, as arrays."""
    return Work(**{f.name: np.array([getattr(work, f.name) for work in works], dtype=float) for f in fields(Work)})


def compute_rate_flops_per_s(model: Model, hardware: Hardware, config: EngineConfig) -> float:
    """Published tensor-core rate that the checkpoint's format runs at.

    Raises:
        ConfigError: If the hardware does not run that format.
    """
    weights = checkpoint(model, config)
    precision = constants.COMPUTE_PRECISION.get(hardware.arch, {}).get(weights.format)
    if precision not in hardware.flops_per_s:
        raise ConfigError(
            f"precision.weights={config.precision.weights}: {weights.repo} is {weights.format}, which {hardware.name} "
            f"({hardware.arch}) does not run; choose another precision or hardware"
        )
    return hardware.flops_per_s[precision]


def work(model: Model, hardware: Hardware, config: EngineConfig, lengths: MeanLengths, running: Numbers) -> Work:
    """The work of an iteration while `running` requests of these lengths are served without a break.

    A request gives up its place for a new one after OSL iterations, so prompts arrive at running / OSL per iteration.

    Raises:
        ConfigError: If a published limit is missing, or the hardware does not run the checkpoint's format.
    """
    layout, ranks = config.parallelism, attention_ranks(config)
    devices, pp = layout.tp * layout.pp, layout.pp
    count, part, weights_format = parameters(model), weight_bytes(model, config), checkpoint(model, config).format
    isl_tokens, osl_tokens, context = lengths.isl_tokens, lengths.osl_tokens, lengths.context_tokens
    batch, prompts = running / pp, running / osl_tokens / pp
    tokens_per_iteration = (config.batching.max_num_tokens or engine_defaults(config).max_num_tokens) * ranks
    room = np.maximum(1.0, tokens_per_iteration - running)
    with_prompts = np.minimum(1.0, prompts * np.maximum(1.0, isl_tokens / room))

    routed, expert_bytes, num_expert_layers = 0.0, 0.0, 0
    if model.num_experts:
        routed = model.num_experts_per_token / model.num_experts
        num_expert_layers = model.num_layers - model.num_dense_layers

        def touched(tokens: Numbers) -> Numbers:
            number = experts_touched(model.num_experts, model.num_experts_per_token, np.maximum(1.0, tokens))
            return number / model.num_experts

        mixed = batch + np.minimum(isl_tokens * np.maximum(1.0, prompts), room)
        share = touched(batch) * (1 - with_prompts) + touched(mixed) * with_prompts
        expert_bytes = part.experts * share / devices

    linear = 2 * (count.attention + count.dense)
    scores = 4 * model.num_heads * (model.mla_kv_dim or model.head_dim) * attended_token_layers(model, context)
    # Causal: a prompt's token attends to half of what its last one attends to.
    of_prompts = attended_token_layers(model, lengths.prompt_of_token_tokens)
    prompt_scores = 2 * model.num_heads * model.head_dim * isl_tokens * of_prompts
    tokens = batch + prompts * isl_tokens
    # Two all-reduces a layer, each a gathering and a scattering; attention ranks gather and scatter for the FFN alone.
    sent_per_layer = (2 if ranks > 1 else 4) * (layout.tp - 1) / layout.tp
    return Work(
        batch=batch,
        prompts=prompts,
        iterations=np.maximum(1.0, running / osl_tokens * isl_tokens / room),
        weight_bytes=((part.output + part.attention) * ranks + part.dense) / devices,
        expert_bytes=expert_bytes,
        kv_bytes=kv_bytes(model, config, context) * batch / ranks,
        decode_flops=batch * (linear + 2 * count.experts * routed + 2 * count.output + scores) / devices,
        prefill_flops=prompts * (isl_tokens * linear + prompt_scores) / devices,
        expert_prefill_flops=prompts * isl_tokens * 2 * count.experts * routed / devices,
        num_layers=model.num_layers / pp,
        num_fp8_expert_layers=num_expert_layers / pp if weights_format == "fp8_block" else 0.0,
        num_exchanges=(2 * model.num_layers / pp if layout.tp > 1 else 0.0) + (pp > 1),
        exchange_bytes=tokens * model.hidden_size * 2 * (sent_per_layer * model.num_layers / pp + (pp > 1)),
        num_stages=float(pp),
        is_divided_by_rank=float(ranks > 1 and config.engine == "vllm"),
        is_hopper=float(hardware.arch == "hopper"),
        bandwidth_bytes_per_s=published(hardware, "memory_bandwidth_bytes_per_s"),
        rate_flops_per_s=compute_rate_flops_per_s(model, hardware, config),
        link_bytes_per_s=published(hardware, "link_bandwidth_bytes_per_s") if devices > 1 else 1.0,
        idle_w=published(hardware, "idle_power_w"),
        limit_w=published(hardware, "board_power_w"),
    )
