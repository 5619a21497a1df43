"""A split deployment as files: a YAML file per kind of server, one for the orchestrator, and a script that starts all.

Rendered only; not run by this project. Sources: TensorRT-LLM's examples/disaggregated/README.md and slurm/benchmark/,
llmapi/disagg_utils.py for the orchestrator's file.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.disaggregation import Deployment, Disaggregation
from pipeline.engine.protocol import Rendered
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.trtllm.disaggregated_rules import Case, max_tokens_in_buffer, tokens_per_block, why_not
from pipeline.engine.trtllm.disaggregated_script import commands, is_on_one_node
from pipeline.engine.trtllm.multinode import ALL_ADDRESSES
from pipeline.engine.trtllm.placement import PlacedServer, node_placeholder, placed
from pipeline.engine.trtllm.rules.rule import MAX_NUM_TOKENS
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.study import Study

DEFAULT_PORT = 8000
"""Of the orchestrator; servers have the next ones."""


class Router(BaseModel):
    """How the orchestrator picks a server; the rest are arguments of KvCacheAwareRouter in serve/router.py."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["round_robin", "load_balancing", "kv_cache_aware", "conversation"]
    max_batch_size: int | None = Field(default=None, ge=1)
    tokens_per_block: int | None = Field(default=None, ge=1)


class Servers(BaseModel):
    """The servers of a kind: extract_ctx_gen_cfgs in llmapi/disagg_utils.py."""

    model_config = ConfigDict(extra="forbid")
    num_instances: int = Field(ge=1)
    urls: list[str]
    router: Router

    @model_validator(mode="after")
    def _one_url_each(self) -> "Servers":
        if len(self.urls) != self.num_instances:
            raise ValueError(f"{len(self.urls)} urls for num_instances={self.num_instances}")
        return self


class Orchestrator(BaseModel):
    """The orchestrator's file: the keys of extract_disagg_cfg in llmapi/disagg_utils.py that are used here.

    Any other key at the top would be inherited by both kinds of server, and refused where theirs differs.
    """

    model_config = ConfigDict(extra="forbid")
    hostname: str
    port: int = Field(ge=1, le=65535)
    schedule_style: Literal["context_first", "generation_first"]
    context_servers: Servers
    generation_servers: Servers

    @model_validator(mode="after")
    def _no_url_twice(self) -> "Orchestrator":
        urls = [*self.context_servers.urls, *self.generation_servers.urls]
        if len(set(urls)) != len(urls):
            raise ValueError("a server is given twice")
        return self


def render_deployment(deployment: Deployment, study: Study) -> Rendered:
    """Files and script of a split deployment.

    Raises:
        ConfigError: If one of its servers cannot be rendered, or they do not go together, or do not fit.
    """
    case = _case(deployment, study)
    if (reason := why_not(case)) is not None:
        raise ConfigError(reason)
    servers, context, generation = _servers(deployment, study), deployment.context, deployment.generation
    rendered = {
        "context": TrtllmEngine().render(as_server(context, study), study),
        "generation": TrtllmEngine().render(as_server(generation, study), without_prompts(generation, study)),
    }
    files = {f"{kind}_{name}": text for kind, one in rendered.items() for name, text in one.files.items()}
    orchestrator = orchestrator_file(servers, case.split, study)
    files["disagg.yaml"] = yaml.safe_dump(orchestrator.model_dump(exclude_none=True), sort_keys=False)
    files["serve.sh"] = "\n".join(commands(servers, rendered, study))
    return Rendered(files=files, argv=("{dir}/serve.sh",), weights_init=rendered["context"].weights_init)


def cannot_be_placed(deployment: Deployment, study: Study) -> str | None:
    """Why its servers do not go together, or do not fit the hardware; None if they do.

    Raises:
        ConfigError: If the study does not split.
    """
    try:
        _servers(deployment, study)
    except ConfigError as error:
        return str(error)
    return why_not(_case(deployment, study))


def num_machines(deployment: Deployment, study: Study) -> int:
    """Machines that its servers are placed on.

    Raises:
        ConfigError: If they do not fit.
    """
    return 1 + max(node for server in _servers(deployment, study) for node in server.nodes)


def as_server(config: EngineConfig, study: Study) -> EngineConfig:
    """A config with what passes the KV cache on, without which a server takes no half of a request.

    Raises:
        ConfigError: If the study does not split.
    """
    split = _split(study)
    knobs: dict[str, Value] = {
        "cache_transceiver_config.backend": split.cache_transceiver.backend,
        "cache_transceiver_config.max_tokens_in_buffer": max_tokens_in_buffer(config, split, study),
    }
    if split.cache_transceiver.runtime is not None:
        knobs["cache_transceiver_config.transceiver_runtime"] = split.cache_transceiver.runtime
    return dataclasses.replace(config, knobs=config.knobs | knobs)


def without_prompts(config: EngineConfig, study: Study) -> Study:
    """The study as a generation server sees it: as long a context, no prompt that a step of it would have to hold.

    TensorRT-LLM compares a prompt with max_num_tokens except for such servers: LLM._check_arguments in llmapi/llm.py.
    """
    load = study.workload
    isl_tokens = min(load.isl_tokens, config.batching.max_num_tokens or MAX_NUM_TOKENS)
    workload = dataclasses.replace(load, isl_tokens=isl_tokens, osl_tokens=load.max_seq_len_tokens - isl_tokens)
    return dataclasses.replace(study, workload=workload)


def orchestrator_file(servers: Sequence[PlacedServer], split: Disaggregation, study: Study) -> Orchestrator:
    """The orchestrator's file. On several machines placeholders stand for their names, which serve.sh fills in."""
    is_local = is_on_one_node(servers)

    def group(kind: str) -> Servers:
        ours = [server for server in servers if server.kind == kind]
        batching, is_aware = ours[0].config.batching, split.router == "kv_cache_aware"
        return Servers(
            num_instances=len(ours),
            urls=[f"{'127.0.0.1' if is_local else node_placeholder(server.nodes[0])}:{server.port}" for server in ours],
            router=Router(
                type=split.router,
                max_batch_size=batching.max_batch_size if is_aware else None,
                tokens_per_block=tokens_per_block(ours[0].config) if is_aware else None,
            ),
        )

    return Orchestrator(
        hostname=study.engine.host if is_local else ALL_ADDRESSES,
        port=study.engine.port or DEFAULT_PORT,
        schedule_style=split.schedule_style,
        context_servers=group("context"),
        generation_servers=group("generation"),
    )


def _case(deployment: Deployment, study: Study) -> Case:
    return Case(deployment=deployment, split=_split(study), study=study)


def _split(study: Study) -> Disaggregation:
    if study.disaggregation is None:
        raise ConfigError("disaggregation=none: there is nothing to split; set disaggregation=split")
    return study.disaggregation


def _servers(deployment: Deployment, study: Study) -> list[PlacedServer]:
    return placed(deployment, study.hardware, (study.engine.port or DEFAULT_PORT) + 1)
