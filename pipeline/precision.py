"""What a precision means on a GPU: which checkpoint, its weights, the activations it is multiplied with, its KV cache.

Precision is a choice of checkpoint: none of these engines but vLLM (bf16 to fp8) converts weights as it loads.
"""

from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.study import Hardware, Model

ACTIVATIONS = {
    ("bf16", "hopper"): "bf16",
    ("bf16", "blackwell"): "bf16",
    ("fp8", "hopper"): "fp8 per tensor",
    ("fp8", "blackwell"): "fp8 per tensor",
    ("fp8_block", "hopper"): "fp8 per 128 values",
    ("fp8_block", "blackwell"): "fp8 per 128 values",
    ("mxfp4", "hopper"): "bf16",
    ("mxfp4", "blackwell"): "mxfp8",
    ("nvfp4", "blackwell"): "nvfp4",
}
"""(checkpoint format, architecture) -> format of the activations; a pair that is missing does not run. Source of fp8
and nvfp4: TensorRT-LLM's quantization/mode.py; of mxfp4: ModelConfig.get_mxfp4_quant_algo (8 bits from SM 100 on)."""

MXFP4_BY_BACKEND = {("blackwell", "TRITON"): "fp8"}
"""The same for MXFP4 where the backend of the experts decides. Source: as above."""

KV_CACHE_AUTO = {"fp8": "fp8", "nvfp4": "fp8"}
"""Checkpoint format -> KV cache format of `auto`; bf16 for the others. Checkpoints of NVIDIA's Model Optimizer ask for
an FP8 cache in hf_quant_config.json, as far as NVIDIA publishes them; one that does not gets bf16."""

CACHE_OF_16_BITS = frozenset({"vllm"})
"""Engines whose `auto` is 16 bits all the same: vLLM makes FP8 weights of 16-bit ones as it loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """The formats that a config computes in."""

    repo: str
    weights: str
    activations: str
    kv_cache: str

    def __str__(self) -> str:
        """In one line."""
        return f"{self.repo}: {self.weights} weights, {self.activations} activations, {self.kv_cache} KV cache"


def formats(config: EngineConfig, model: Model, hardware: Hardware) -> Formats | None:
    """What a config's precision means; None on a CPU, without such a checkpoint, or where it cannot run."""
    checkpoint = model.checkpoints.get(config.precision.weights)
    if checkpoint is None or (checkpoint.format, hardware.arch) not in ACTIVATIONS:
        return None
    activations = ACTIVATIONS[checkpoint.format, hardware.arch]
    if checkpoint.format == "mxfp4":
        backend = str(config.knobs.get("moe_config.backend"))
        activations = MXFP4_BY_BACKEND.get((hardware.arch, backend), activations)
    asked = config.precision.kv_cache
    auto = "bf16" if config.engine in CACHE_OF_16_BITS else KV_CACHE_AUTO.get(checkpoint.format, "bf16")
    return Formats(
        repo=checkpoint.repo,
        weights=checkpoint.format,
        activations=activations,
        kv_cache=auto if asked is None or asked == "auto" else asked,
    )
