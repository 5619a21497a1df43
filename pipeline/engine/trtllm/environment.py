"""Environment variables of the server that are worth turning; as knobs they are written `env.NAME`.

TensorRT-LLM has several hundred; these change how fast or with how much energy it serves. Anything else belongs in
`engine.env`, which is the same for every config of a study.
"""

from dataclasses import dataclass

from pipeline.compose import nearest
from pipeline.engine.trtllm.llm_args import ENV
from pipeline.engine_config import EngineConfig

OFF_ON = ("0", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One variable.

    Attributes:
        values: Texts that it may be; empty for a whole number from 1 on.
        default: What TensorRT-LLM takes it for when it is not set; None where that depends.
        source: File that reads it, and era.
        note: What it does.
    """

    values: tuple[str, ...]
    default: str | None
    source: str
    note: str


SWITCHES: dict[str, Switch] = {
    "TRTLLM_ENABLE_PDL": Switch(
        values=OFF_ON, default="1", source="cpp/tensorrt_llm/common/envUtils.cpp, _torch/pyexecutor/model_engine.py",
        note="programmatic dependent launch: kernels begin before the one before has ended; off before 1.2",
    ),
    "OVERRIDE_QUANT_ALGO": Switch(
        values=("W4A16_MXFP4", "W4A8_MXFP4_FP8", "W4A8_MXFP4_MXFP8"), default=None,
        source="_torch/model_config.py, get_mxfp4_quant_algo",
        note="activations of MXFP4 checkpoints; else 16 bits on Hopper, MXFP8 on Blackwell (FP8 with TRITON)",
    ),
    "NCCL_GRAPH_REGISTER": Switch(
        values=OFF_ON, default=None, source="NCCL; NVIDIA's recipes for B200 of early 2026 set 0",
        note="registers buffers of CUDA graphs with NCCL; default is NCCL's own",
    ),
    "TRTLLM_SERVER_DISABLE_GC": Switch(
        values=OFF_ON, default="0", source="commands/serve.py", note="no garbage collection in the HTTP process",
    ),
    "TRTLLM_WORKER_DISABLE_GC": Switch(
        values=OFF_ON, default="0", source="executor/worker.py", note="no garbage collection in the GPU workers",
    ),
    "TRTLLM_FORCE_COMM_METHOD": Switch(
        values=("NVLINK_ONE_SIDED", "NVLINK_TWO_SIDED", "DEEPEP", "DEEPEPLOWLATENCY", "ALLGATHER"), default=None,
        source="_torch/modules/fused_moe/communication/communication_factory.py, 2026",
        note="how experts exchange tokens under attention data parallelism; else the first that works, in this order",
    ),
    "TRTLLM_FORCE_ALLTOALL_METHOD": Switch(
        values=("NotEnabled", "MNNVL", "NVLinkOneSided", "NVLinkTwoSided", "DeepEP", "DeepEPLowLatency"), default=None,
        source="_torch/modules/fused_moe/interface.py, AlltoallMethodType, until early 2026; MNNVL until 1.1",
        note="the same before TRTLLM_FORCE_COMM_METHOD",
    ),
    "TRTLLM_MOE_ALLTOALL_BACKEND": Switch(
        values=("mnnvlthroughput", "mnnvllatency"), default="mnnvlthroughput",
        source="_torch/modules/fused_moe/fused_moe_trtllm_gen.py, 1.1 and 1.2",
        note="kernels of the exchange over NVLink",
    ),
    "TRTLLM_MOE_A2A_WORKSPACE_MB": Switch(
        values=(), default=None, source="_torch/modules/fused_moe/communication/nvlink_one_sided.py",
        note="memory for that exchange on each rank, MiB; else computed from max_num_tokens",
    ),
    "TRTLLM_CAN_USE_DEEP_EP": Switch(
        values=OFF_ON, default=None, source="_torch/modules/fused_moe/communication/communication_factory.py",
        note="lets DeepEP exchange tokens where NVLink cannot; 0 in 1.2, 1 in 2026",
    ),
    "TRTLLM_MOE_POST_QUANT_ALLTOALLV": Switch(
        values=OFF_ON, default="1", source="_torch/modules/fused_moe/communication/deep_ep_low_latency.py",
        note="sends activations after quantising them",
    ),
    "TRTLLM_MOE_USE_LOW_PRECISION_COMBINE": Switch(
        values=OFF_ON, default="0", source="NVIDIA's scripts for GB200 and GB300 NVL72 of 2025 set 1",
        note="what is now moe_config.use_low_precision_moe_combine: experts send their answers back in fewer bits",
    ),
    "TRTLLM_DEEP_EP_TOKEN_LIMIT": Switch(
        values=(), default=None, source="_torch/modules/fused_moe/communication/deep_ep_low_latency.py",
        note="tokens of one rank that DeepEP's low-latency exchange has room for",
    ),
    "TLLM_MOE_ENABLE_SHARED_EXPERT_FUSION": Switch(
        values=OFF_ON, default="0", source="_torch/modules/fused_moe/fused_moe_trtllm_gen.py, 2026",
        note="shared experts within the routed ones' kernel: FP8 in blocks, ep=1, no attention data parallelism",
    ),
    "TRITON_MOE_MXFP4_NUM_WARPS": Switch(
        values=("4", "8"), default="4", source="_torch/modules/fused_moe/fused_moe_triton.py",
        note="warps of the TRITON backend's kernels",
    ),
    "TLLM_DISABLE_ALLREDUCE_AUTOTUNE": Switch(
        values=OFF_ON, default="0", source="_torch/distributed/ops.py", note="AUTO allreduce by table, not by timing",
    ),
    "TRTLLM_FORCE_MNNVL_AR": Switch(
        values=OFF_ON, default="0", source="_torch/distributed/ops.py",
        note="fabric handles for the allreduce over NVLink within one machine too (GB200, GB300)",
    ),
    "TRTLLM_DEEPSEEK_EAGER_FUSION_DISABLED": Switch(
        values=OFF_ON, default="0", source="_torch/models/modeling_deepseekv3.py",
        note="no fusion of allreduce and normalisation in DeepSeek models",
    ),
    "TRTLLM_LLAMA_EAGER_FUSION_DISABLED": Switch(
        values=OFF_ON, default="0", source="_torch/models/modeling_llama.py", note="the same in Llama models",
    ),
    "TRTLLM_QWEN3_EAGER_FUSION_DISABLED": Switch(
        values=OFF_ON, default=None, source="_torch/models/modeling_qwen3_moe.py",
        note="the same in Qwen3 models; 1 until early 2026, 0 since",
    ),
    "TRTLLM_ENABLE_ATTENTION_NVFP4_OUTPUT": Switch(
        values=OFF_ON, default="1", source="_torch/modules/attention.py",
        note="attention writes NVFP4 for the next layer, on Blackwell",
    ),
    "DISABLE_HARMONY_ADAPTER": Switch(
        values=OFF_ON, default="0", source="serve/openai_server.py",
        note="gpt-oss's chat route without the parser of its own format; completions never use it",
    ),
}  # fmt: skip
"""By name."""


def problem(name: str, value: object) -> str | None:
    """Why a variable cannot be a knob, or cannot have this value; None if it can.

    Args:
        name: With or without the prefix `env.`.
        value: As the knob has it.
    """
    name = name.removeprefix(ENV)
    switch = SWITCHES.get(name)
    if switch is None:
        hint = nearest(name, tuple(SWITCHES))
        return (
            f"engine.knobs.{ENV}{name}: is none of the switches worth turning{hint}; set it in engine.env, for all "
            f"configs alike, or pass it on with engine.allow_unknown=true, or use one of {', '.join(SWITCHES)}"
        )
    word = text(value)
    is_number = not isinstance(value, bool) and word.isdecimal() and int(word) >= 1
    if word in switch.values or (not switch.values and is_number):
        return None
    allowed = ", ".join(switch.values) or "a whole number from 1 on"
    return f"engine.knobs.{ENV}{name}={word}: takes {allowed}; set one of these"


def environment(config: EngineConfig) -> dict[str, str]:
    """The environment variables that a config's knobs set, by name."""
    return {name.removeprefix(ENV): text(value) for name, value in sorted(config.knobs.items()) if name.startswith(ENV)}


def text(value: object) -> str:
    """A knob's value as the environment has it: switches are 0 and 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)
