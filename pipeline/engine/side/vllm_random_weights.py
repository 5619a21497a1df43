"""vLLM with truly random weights: `python vllm_random_weights.py serve MODEL_DIR --load-format tpw_random ...`.

Runs in vLLM's own environment; written against the sources of vLLM 0.24.0. MODEL_DIR needs config.json and a
tokenizer, no weights. Why not `--load-format dummy`: that draws floats within +-0.001 and leaves integer tensors as
they were made, and the packed MXFP4 experts of gpt-oss are made of zeros. Multiplying zeros costs too little power.

The load format is registered when this file runs as a process's main module. vLLM's command line starts its engine
core and its workers with multiprocessing's "spawn", and a spawned Python runs the main script again, as `__mp_main__`,
before it unpickles its work; a forked one inherits the registration. So every process has it, without a plugin.

What is drawn, each parameter from its own seed, so that a replicated one is equal on every rank:

    floating point      N(0, 0.02), the initialisation that Hugging Face configs name; norm weights N(1, 0.02)
    MXFP4 codes         uniform nibbles
    MXFP4 block scales  2^-8, 2^-7 or 2^-6, 9:6:1, which makes the standard deviation of the real weights 0.02
    fp8 (e4m3)          codes N(0, 64), weight scales uniform within 10 % of 0.02 / 64
    activation scales   constant

Buffers, KV-cache scales and the padding of MXFP4 experts keep what vLLM gave them, as they do under a checkpoint.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

SD = 0.02
WEIGHTS_INIT = f"tpw_random/1: sd {SD:g}, normal floats, uniform MXFP4 nibbles, seed {{}}"
"""With its seed, stored with every row measured on such weights; the number changes whenever the draws do."""

E8M0_CODES = (119,) * 9 + (120,) * 6 + (121,)
"""Equally likely scale bytes (e is 2^(e - 127), OCP Microscaling v1.0); with uniform nibbles SD is met within 0.1 %."""

E8M0_STEPS = tuple(pick for pick in range(1, len(E8M0_CODES)) if E8M0_CODES[pick] > E8M0_CODES[pick - 1])
"""Picks at which the byte grows."""

FP8_MAX = 448.0
"""Largest e4m3 value. Source: OCP 8-bit Floating Point v1.0."""

FP8_CODE_SD, FP8_SCALE_SPREAD = 64.0, 0.1
"""Weights scaled to their own maximum have codes of sd 80 to 110; 64 keeps clear of clipping."""

INPUT_SCALE = 0.05
"""Activation scale of statically quantised layers: reaches +-22 in e4m3, enough behind a norm."""

KV_SCALES = frozenset({"q_scale", "k_scale", "v_scale", "prob_scale"})
"""vLLM makes these -1, which stands for 1.0 unless a checkpoint says otherwise."""

CHUNK_NUMEL = 2**24
"""Elements drawn at a time, so that no temporary exceeds 64 MiB beside 60 GB of weights on an 80 GB card."""

MIN_JUDGED_NUMEL = 32
"""A chunk with fewer elements (scales per tensor) may be constant by chance."""

MIN_SD_NUMEL = 2**16
SD_TOLERANCE = 0.05
"""From MIN_SD_NUMEL elements on, the standard deviation drawn must match the intended one; it errs by 0.3 %."""

_LOG = logging.getLogger("vllm.tpw_random_weights")  # vLLM gives a handler to loggers below "vllm"


class RandomWeightsError(Exception):
    """A parameter cannot be filled as intended; the message names it."""


@dataclass(frozen=True)
class Draw:
    """How the stored values of a parameter are drawn; `mean` and `sd` are those of the stored values."""

    kind: Literal["normal", "nibbles", "exponents", "fp8", "uniform", "constant"]
    mean: float
    sd: float


WEIGHT = Draw("normal", 0.0, SD)
NORM_WEIGHT = Draw("normal", 1.0, SD)
NIBBLES = Draw("nibbles", 127.5, math.sqrt((256**2 - 1) / 12))
_MEAN_CODE = sum(E8M0_CODES) / len(E8M0_CODES)
EXPONENTS = Draw("exponents", _MEAN_CODE, math.sqrt(sum((c - _MEAN_CODE) ** 2 for c in E8M0_CODES) / len(E8M0_CODES)))
FP8 = Draw("fp8", 0.0, FP8_CODE_SD)
FP8_SCALE = Draw("uniform", SD / FP8_CODE_SD, SD / FP8_CODE_SD * FP8_SCALE_SPREAD / math.sqrt(3))
ACTIVATION_SCALE = Draw("constant", INPUT_SCALE, 0.0)


def draw_for(name: str, dtype: str, *, is_norm: bool) -> Draw | None:
    """Choose how a parameter is drawn.

    Args:
        name: Its full name, e.g. model.layers.0.mlp.experts.w13_weight_scale.
        dtype: Its type without "torch.", e.g. uint8.
        is_norm: Whether its layer is a normalisation.

    Returns:
        The draw, or None to leave the parameter as it is.

    Raises:
        RandomWeightsError: If no rule knows such a parameter.
    """
    rules = {
        "uint8": (NIBBLES, EXPONENTS),
        "float8_e4m3fn": (FP8, None),
        "float32": (WEIGHT, FP8_SCALE),
        "bfloat16": (WEIGHT, None),
        "float16": (WEIGHT, None),
    }
    parameter = name.rpartition(".")[2]
    if parameter in KV_SCALES:
        return None
    if parameter.endswith("input_scale"):
        return ACTIVATION_SCALE
    is_scale = parameter.endswith(("_scale", "_scale_inv", "_scale_2"))
    draw = rules.get(dtype, (None, None))[is_scale]
    if draw is None or (is_scale and not parameter.endswith(("weight_scale", "weight_scale_inv"))):
        raise RandomWeightsError(f"no rule draws {name} of type {dtype}; use a checkpoint")
    return NORM_WEIGHT if draw is WEIGHT and is_norm and parameter == "weight" else draw


def seed_of(name: str, seed: int) -> int:
    """Seed of the parameter with this full name, below 2**63, under the seed of the model."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1


def chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Cut a tensor that is not empty along its first dimension into views of about CHUNK_NUMEL elements."""
    rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
    yield from rows.split(max(1, CHUNK_NUMEL * rows.shape[0] // rows.numel()))


def fill_chunk(chunk: torch.Tensor, draw: Draw, generator: torch.Generator) -> None:
    """Draw the values of one chunk in place; needs at most four bytes per element beside it."""
    if draw.kind == "constant":
        chunk.fill_(draw.mean)
    elif draw.kind == "normal":
        chunk.normal_(draw.mean, draw.sd, generator=generator)
    elif draw.kind == "nibbles":
        chunk.random_(0, 256, generator=generator)
    elif draw.kind == "exponents":
        picks = chunk.random_(0, len(E8M0_CODES), generator=generator).clone()
        chunk.fill_(E8M0_CODES[0])
        for step in E8M0_STEPS:
            chunk.add_(picks >= step)
    elif draw.kind == "uniform":
        half = draw.sd * math.sqrt(3)
        chunk.uniform_(draw.mean - half, draw.mean + half, generator=generator)
    else:
        values = chunk.float().normal_(draw.mean, draw.sd, generator=generator)
        chunk.copy_(values.clamp_(-FP8_MAX, FP8_MAX))


def check_chunk(name: str, chunk: torch.Tensor, draw: Draw) -> float | None:
    """Look at what was drawn.

    Returns:
        Standard deviation / the intended one; None if the chunk is too small to tell.

    Raises:
        RandomWeightsError: If the chunk is constant, or its standard deviation is off; names the parameter.
    """
    if draw.kind == "constant" or chunk.numel() < MIN_JUDGED_NUMEL:
        return None
    values = chunk.float()
    if float(values.min()) == float(values.max()):
        raise RandomWeightsError(f"{name} is constant after it was filled")
    if chunk.numel() < MIN_SD_NUMEL:
        return None
    ratio = float(values.std()) / draw.sd
    if not abs(ratio - 1) <= SD_TOLERANCE:
        raise RandomWeightsError(f"{name}: standard deviation is {ratio:.3f} of the intended {draw.sd:g}")
    return ratio


def real_size(size: int, real: int, padded: int) -> int:
    """Elements of a dimension that hold weights, if `padded` units of the layer stand for `real` ones."""
    return -(-size * real // padded)


def weights_in(layer: Any, parameter: str, data: torch.Tensor) -> torch.Tensor:
    """The part of a parameter's data that a checkpoint would fill.

    vLLM pads the MXFP4 experts of gpt-oss at the end of each dimension to what its kernels need, and leaves the
    padding zero.
    """
    if getattr(getattr(layer, "quant_method", None), "weight_dtype", None) != "gpt_oss_mxfp4":
        return data
    moe = layer.moe_config
    hidden = (moe.hidden_dim_unpadded, moe.hidden_dim)
    intermediate = (moe.intermediate_size_per_partition_unpadded, moe.intermediate_size_per_partition)
    sizes = (intermediate, hidden) if parameter.startswith("w13") else (hidden, intermediate)
    for dim, (real, padded) in zip(range(1, data.dim()), sizes, strict=False):
        data = data.narrow(dim, 0, real_size(data.shape[dim], real, padded))
    return data


@dataclass
class Filler:
    """Fills the parameters of a model, layer by layer, and says in the end what it did.

    Attributes:
        pending: Full names of the parameters not met yet. A shared one has one name, that of its first owner.
        seed: Seed of the model: `{"seed": 1}` in vLLM's --model-loader-extra-config.
    """

    pending: set[str]
    seed: int = 0
    num_tensors: int = 0
    num_bytes: int = 0
    sd_ratios: list[float] = field(default_factory=list)

    def fill_layer(self, name: str, layer: torch.nn.Module, new_generator: Any) -> None:
        """Fill a layer's own pending parameters, not its children's.

        Args:
            name: Full name of the layer, empty for the model; with a parameter's name it gives the seed.
            layer: The layer.
            new_generator: torch.Generator.

        Raises:
            RandomWeightsError: If a parameter cannot be filled as intended; names it.
        """
        is_norm = "Norm" in type(layer).__name__
        for leaf, parameter in layer.named_parameters(recurse=False):
            full = f"{name}.{leaf}" if name else leaf
            if full not in self.pending:
                continue
            self.pending.remove(full)
            if parameter.is_meta:
                raise RandomWeightsError(f"{full} has no memory yet and no known way to get any")
            draw = draw_for(full, str(parameter.dtype).removeprefix("torch."), is_norm=is_norm)
            if draw is None or parameter.numel() == 0:
                continue
            generator = new_generator(device=parameter.device).manual_seed(seed_of(full, self.seed))
            for chunk in chunks(weights_in(layer, leaf, parameter.data)):
                fill_chunk(chunk, draw, generator)
                ratio = check_chunk(full, chunk, draw)
                self.sd_ratios += [] if ratio is None else [ratio]
            self.num_tensors += 1
            self.num_bytes += parameter.numel() * parameter.element_size()

    def finish(self) -> None:
        """Say in one line what was drawn.

        Raises:
            RandomWeightsError: If a parameter was never met.
        """
        if self.pending:
            raise RandomWeightsError(f"{len(self.pending)} parameters were not filled, e.g. {min(self.pending)}")
        low, high = min(self.sd_ratios, default=math.nan), max(self.sd_ratios, default=math.nan)
        _LOG.info(
            "tpw random weights: %d tensors, %.2f GiB, %s; 0 constant, std %.4f to %.4f of intended",
            self.num_tensors, self.num_bytes / 2**30, WEIGHTS_INIT.format(self.seed), low, high,
        )  # fmt: skip


if __name__ in {"__main__", "__mp_main__"}:
    import torch
    from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
    from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
    from vllm.model_executor.model_loader.reload.meta import materialize_layer

    class RandomWeightsLoader(BaseModelLoader):  # type: ignore[misc]  # vLLM is not in the checker's environment
        """Fills a model as vLLM made it, before vLLM converts the weights to what its kernels need."""

        def download_model(self, model_config: Any) -> None:
            """Nothing to download."""

        def load_weights(self, model: torch.nn.Module, _model_config: Any) -> None:
            """Fill every parameter.

            A layer that is quantised as it loads has no memory yet: it gets some, is filled in 16 bits and quantised
            at once, so that only one layer at a time exists in 16 bits.
            """
            seed = self.load_config.model_loader_extra_config.get("seed", 0)
            filler = Filler({name for name, _ in model.named_parameters()}, seed)
            for name, layer in model.named_modules():
                info = get_layerwise_info(layer)
                quantised_on_load = info.can_load()
                if quantised_on_load:
                    materialize_layer(layer, info)
                filler.fill_layer(name, layer, torch.Generator)
                if quantised_on_load:
                    method = getattr(layer, "quant_method", None)
                    if isinstance(method, QuantizeMethodBase):
                        method.process_weights_after_loading(layer)
                    info.reset()
            filler.finish()

    register_model_loader("tpw_random")(RandomWeightsLoader)

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
