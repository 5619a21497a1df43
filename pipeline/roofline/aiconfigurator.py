"""NVIDIA's aiconfigurator beside our model: a config in its terms, and its answer with our watts.

It adds up kernels that were measured on each GPU. It has throughput and latency but, for TensorRT-LLM, no power: its
figures get our watts (see `at_speed`). Knobs are in neither model. Asking it is search/second_opinion.py.
"""

import dataclasses
import math
from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.precision import formats
from pipeline.roofline.lengths import MeanLengths
from pipeline.roofline.memory import attention_ranks, engine_defaults, published
from pipeline.roofline.predict import Prediction
from pipeline.study import Hardware, Model
from pipeline.workload import Workload

KEY = "search.aiconfigurator_python"
"""What names the environment that has it."""

SYSTEMS = {
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "b200": "b200_sxm",
    "b300": "b300_sxm",
    "gb200_nvl72": "gb200",
    "gb300_nvl72": "gb300",
}
"""Our hardware -> its name. Source: systems/*.yaml of aiconfigurator_core 0.12."""

BACKENDS = ("trtllm", "vllm")

SAME_SHAPES = {
    "deepseek-r1": "deepseek-ai/DeepSeek-R1",
    "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama/Meta-Llama-3.1-70B",
    "llama-3.3-70b": "meta-llama/Meta-Llama-3.1-70B",
    "llama-3.1-405b": "meta-llama/Meta-Llama-3.1-405B",
}
"""Our models -> one of the same architecture whose config.json it brings along (model_configs/); that of any other
repository it downloads."""

FORMATS = {
    "bf16": ("bfloat16", "bfloat16"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8_block", "fp8_block"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "mxfp4": ("bfloat16", "w4a16_mxfp4"),
}
"""Checkpoint format -> its names for linear layers and routed experts, with 16-bit activations for MXFP4."""

MXFP8_ACTIVATIONS = "w4a8_mxfp4_mxfp8"
KV_FORMATS = {"bf16": "bfloat16", "fp8": "fp8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One operating point of one config in aiconfigurator's terms; side/aiconfigurator_estimates.py has the meanings.

    `num_running` requests of the whole engine are what `batch` of every rank and stage comes to.
    """

    model: str
    system: str
    backend: str
    tp: int
    pp: int
    attention_dp: int
    ep: int | None
    moe_tp: int | None
    isl_tokens: int
    osl_tokens: int
    max_seq_len_tokens: int
    batch: int
    prompt_tokens: int
    linear: str
    experts: str
    kv_cache: str

    @property
    def num_running(self) -> int:
        """Requests that run in all ranks and stages."""
        return self.batch * self.attention_dp * self.pp

    @property
    def num_gpus(self) -> int:
        """Devices of all ranks and stages."""
        return self.tp * self.attention_dp * self.pp


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What aiconfigurator expects of a request: throughput of all ranks and stages, mean latencies."""

    output_tokens_per_s: float
    ttft_s: float
    tpot_s: float


def request(
    model: Model, hardware: Hardware, workload: Workload, config: EngineConfig, num_running: float
) -> Request | str:
    """A config under a load in aiconfigurator's terms, or why it cannot be asked about.

    Prompts come as in our own model: running / OSL of them arrive in an iteration, at least one in any that has some,
    up to `max_num_tokens`. An engine may keep more back and read them at once; aiconfigurator's search assumes so.

    Args:
        model: Of the study.
        hardware: Of the study.
        workload: Mean lengths are asked about.
        config: Knobs are left out.
        num_running: Requests in the batches of all ranks and stages.

    Raises:
        ConfigError: If it has no data of this hardware, or knows no such engine.
    """
    system = system_of(hardware, config.engine)
    layout, ranks = config.parallelism, attention_ranks(config)
    found = formats(config, model, hardware)
    if found is None or found.weights not in FORMATS or found.kv_cache not in KV_FORMATS:
        kv_cache = config.precision.kv_cache
        return f"precision {config.precision.weights} with KV cache {kv_cache} has no name there"
    if layout.cp > 1:
        return "context parallelism is not asked about"
    if workload.arrival != "closed":
        return "open loops are not asked about"
    if hardware.power_cap_w is not None or hardware.sm_clock_share != 1:
        return "capped power and lower clocks are not asked about"
    linear, experts = FORMATS[found.weights]
    if found.weights == "mxfp4" and found.activations != "bf16":
        experts = MXFP8_ACTIVATIONS
    lengths = MeanLengths.of(workload)
    isl, osl = max(1, round(lengths.isl_tokens)), max(2, round(lengths.osl_tokens))
    batch = math.ceil(num_running / (ranks * layout.pp))
    room = max(1, (config.batching.max_num_tokens or engine_defaults(config).max_num_tokens) - batch)
    return Request(
        model=SAME_SHAPES.get(model.name) or next(iter(model.checkpoints.values())).repo,
        system=system,
        backend=config.engine,
        tp=layout.tp // ranks,
        pp=layout.pp,
        attention_dp=ranks,
        ep=layout.ep if model.num_experts else None,
        moe_tp=(layout.moe_tp or layout.tp // layout.ep) if model.num_experts else None,
        isl_tokens=isl,
        osl_tokens=osl,
        max_seq_len_tokens=workload.max_seq_len_tokens,
        batch=batch,
        prompt_tokens=min(room, round(isl * max(1.0, batch / osl))),
        linear=linear,
        experts=experts,
        kv_cache=KV_FORMATS[found.kv_cache],
    )


def combined(ours: Prediction, asked: Request, theirs: Answer, hardware: Hardware, *, num_waiting: float) -> Prediction:
    """Their throughput and latency, with our watts (`at_speed`).

    The time to first token gets the wait for a place, which aiconfigurator knows nothing of. `running` and `bound` stay
    ours.

    Args:
        ours: Of the same config and load.
        asked: May be of a few requests more than run, where ranks do not divide them: throughput is scaled.
        theirs: The answer.
        hardware: Of the study.
        num_waiting: Requests without a place.
    """
    tokens_per_s = theirs.output_tokens_per_s * ours.running / asked.num_running
    return dataclasses.replace(
        at_speed(ours, tokens_per_s / ours.output_tokens_per_s, hardware, asked.num_gpus),
        ttft_s=theirs.ttft_s + num_waiting * asked.osl_tokens / tokens_per_s,
        tpot_s=theirs.tpot_s,
    )


def at_speed(ours: Prediction, ratio: float, hardware: Hardware, num_gpus: int) -> Prediction:
    """Our prediction with this many times the throughput; the time to first token is left as it is.

    A token takes the same work at any speed, so the joules above idle that it costs stay ours; each token gets less of
    the idle power; and no board exceeds its limit.

    Raises:
        ConfigError: If a published limit is missing.
    """
    idle_w, limit_w = (num_gpus * published(hardware, name) for name in ("idle_power_w", "board_power_w"))
    tokens_per_s, power_w = ours.output_tokens_per_s * ratio, power_at_speed_w(ours.power_w, ratio, idle_w, limit_w)
    return dataclasses.replace(
        ours,
        output_tokens_per_s=tokens_per_s,
        total_tokens_per_s=ours.total_tokens_per_s * ratio,
        tpot_s=ours.tpot_s / ratio,
        power_w=power_w,
        output_tokens_per_joule=tokens_per_s / power_w,
    )


def power_at_speed_w(power_w: float, ratio: float, idle_w: float, limit_w: float) -> float:
    """Power of the same boards at this many times the throughput, see `at_speed`."""
    return min(limit_w, idle_w + (power_w - idle_w) * ratio)


def disagreement(ours: Prediction, theirs: Prediction) -> dict[str, float]:
    """Theirs / ours by quantity."""
    names = ("output_tokens_per_s", "ttft_s", "tpot_s", "power_w", "output_tokens_per_joule")
    return {name: getattr(theirs, name) / getattr(ours, name) for name in names}


def system_of(hardware: Hardware, engine: str) -> str:
    """Its name of this hardware.

    Raises:
        ConfigError: If it has no data of this engine there.
    """
    if hardware.name not in SYSTEMS or engine not in BACKENDS:
        raise ConfigError(
            f"{KEY}: aiconfigurator has no data of engine={engine} on hardware={hardware.name}; it has "
            f"{', '.join(BACKENDS)} on {', '.join(SYSTEMS)}; leave the key out"
        )
    return SYSTEMS[hardware.name]
