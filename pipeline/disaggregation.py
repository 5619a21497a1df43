"""Disaggregated serving: context servers read the prompts, generation servers write the answers.

Every server is an engine of its own, with its own parallelism, so a deployment is two engine configs and how often each
is there. Source: TensorRT-LLM's examples/disaggregated/README.md and docs/source/features/disagg-serving.md.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.engine_config import EngineConfig, Value, content_hash

Axes = dict[str, tuple[Value | None, ...]]
"""Conf path, e.g. parallelism.tp or engine.knobs.NAME, to the values it may take."""

Counts = Annotated[
    tuple[PositiveInt, ...],
    Field(min_length=1),
    BeforeValidator(lambda given: given if isinstance(given, list) else [given]),
]
"""How often a kind of server is there: one number, or several as an axis."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class CacheTransceiver:
    """How the KV cache of a prompt reaches the server that goes on with it; None is TensorRT-LLM's default.

    MPI is left out: it needs all servers in one MPI world, which TensorRT-LLM has deprecated
    (examples/disaggregated/README.md). `max_tokens_in_buffer` None is the longest prompt of the workload.
    """

    backend: Literal["DEFAULT", "UCX", "NIXL", "MOONCAKE"]
    runtime: Literal["CPP", "PYTHON", "auto"] | None = None
    max_tokens_in_buffer: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Disaggregation:
    """How a model is split into servers; every list is an axis.

    Attributes:
        num_context_servers: Servers that read prompts.
        num_generation_servers: Servers that write answers.
        context: Axes of a context server: parallelism, batching, engine.knobs.
        generation: Axes of a generation server.
        router: How the orchestrator picks among servers of a kind. Source: create_router in serve/router.py.
        schedule_style: Which server of a request is asked first. Source: llmapi/disagg_utils.py.
    """

    name: Literal["split"]
    source: str
    num_context_servers: Counts
    num_generation_servers: Counts
    context: Axes
    generation: Axes
    cache_transceiver: CacheTransceiver
    router: Literal["round_robin", "load_balancing", "kv_cache_aware", "conversation"]
    schedule_style: Literal["context_first", "generation_first"]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Deployment:
    """So many context servers of one config and generation servers of another."""

    context: EngineConfig
    num_context_servers: int = Field(ge=1)
    generation: EngineConfig
    num_generation_servers: int = Field(ge=1)

    @property
    def num_gpus(self) -> int:
        """GPUs that the deployment reserves: those of every server."""
        return (
            self.num_context_servers * self.context.parallelism.num_gpus
            + self.num_generation_servers * self.generation.parallelism.num_gpus
        )

    def requested(self) -> dict[str, Value]:
        """Only what is explicitly set, in a fixed order; a server's own keys begin with its kind."""
        return {
            "num_context_servers": self.num_context_servers,
            **{f"context.{key}": value for key, value in self.context.requested().items()},
            "num_generation_servers": self.num_generation_servers,
            **{f"generation.{key}": value for key, value in self.generation.requested().items()},
        }

    @property
    def config_hash(self) -> str:
        """Identity of the requested deployment, over explicitly set keys only."""
        return content_hash({"engine": self.context.engine, "disaggregation": "split", **self.requested()})


def shared_axes(axes: Mapping[str, tuple[Value | None, ...]]) -> Axes:
    """What both kinds of server have in common: the formats, and the engine's knobs that have one value.

    Args:
        axes: The study's.
    """
    return {
        key: values
        for key, values in axes.items()
        if key.startswith("precision.") or (key.startswith("engine.knobs.") and len(values) == 1)
    }


def num_servers(axes: Mapping[str, tuple[Value | None, ...]], split: Disaggregation) -> int:
    """Configs that the axes of the kind with more of them span, possible or not."""
    common = math.prod(map(len, shared_axes(axes).values()))
    return common * max(math.prod(map(len, own.values())) for own in (split.context, split.generation))


def deployments(
    engine: str,
    axes: Mapping[str, tuple[Value | None, ...]],
    split: Disaggregation,
    is_possible: Callable[[str, EngineConfig], bool] = lambda *_: True,
) -> Iterator[Deployment]:
    """Every deployment that the axes span; the last axis of the generation servers changes first.

    Args:
        engine: Its name.
        axes: The study's, of which `shared_axes` counts.
        split: The servers' own axes.
        is_possible: Asked of every server, "context" or "generation" and its config: those that are not are left out.
    """

    def servers(kind: str, own: Axes, common: Mapping[str, Value | None]) -> list[EngineConfig]:
        configs = [EngineConfig.from_axes(engine, _merged(common, values)) for values in _product(own)]
        return [config for config in configs if is_possible(kind, config)]

    sides = [
        (servers("context", split.context, common), servers("generation", split.generation, common))
        for common in _product(shared_axes(axes))
    ]
    for num_context, num_generation in itertools.product(split.num_context_servers, split.num_generation_servers):
        for context, generation in itertools.chain.from_iterable(itertools.product(*pair) for pair in sides):
            yield Deployment(
                context=context,
                num_context_servers=num_context,
                generation=generation,
                num_generation_servers=num_generation,
            )


def _merged(common: Mapping[str, Value | None], own: Mapping[str, Value | None]) -> dict[str, Value | None]:
    """A server's own values over the common ones; of a group that it switches off, nothing is left."""
    off = tuple(f"{key}." for key, value in own.items() if key.startswith("engine.knobs.") and value is False)
    return {key: value for key, value in common.items() if not key.startswith(off)} | dict(own)


def _product(axes: Axes) -> Iterator[dict[str, Value | None]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))
