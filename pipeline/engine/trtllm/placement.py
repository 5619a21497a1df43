"""Which server of a split deployment gets which GPUs of which machine."""

from dataclasses import dataclass

from pipeline.disaggregation import Deployment
from pipeline.engine.trtllm.multinode import num_nodes
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.study import Hardware

MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedServer:
    """One server: its kind and number, its config, and where it runs.

    Attributes:
        nodes: Machines of the deployment, from 0 on.
        gpus: GPUs that it has of each of them, from 0 on.
        port: It listens there.
    """

    kind: str
    number: int
    config: EngineConfig
    nodes: tuple[int, ...]
    gpus: tuple[int, ...]
    port: int

    @property
    def name(self) -> str:
        """Kind and number: context-0."""
        return f"{self.kind}-{self.number}"


def node_placeholder(node: int) -> str:
    """What stands for a machine's name until the job knows it; no hostname has underscores, so none is taken for it."""
    return f"__node{node}__"


def placed(deployment: Deployment, hardware: Hardware, first_port: int) -> list[PlacedServer]:
    """Every server with GPUs of its own, context servers first.

    A server has whole machines, or part of one. Large servers are placed first: of sizes that divide one another, no
    machine but the last is left partly used.

    Args:
        deployment: Its servers.
        hardware: How many GPUs there are, and in one machine.
        first_port: Of the first server; each has the next.

    Raises:
        ConfigError: If they do not fit.
    """
    servers = [
        *(("context", number, deployment.context) for number in range(deployment.num_context_servers)),
        *(("generation", number, deployment.generation) for number in range(deployment.num_generation_servers)),
    ]
    if first_port + len(servers) - 1 > MAX_PORT:
        raise ConfigError(
            f"engine.port={first_port - 1}: its {len(servers)} servers take the next ports; use a lower one"
        )
    # of a machine that has fewer, or of which fewer may be used
    per_node = min(hardware.num_gpus_per_node or hardware.num_gpus, hardware.num_gpus)
    found, node, used = {}, 0, 0
    for server in sorted(servers, key=lambda server: -server[2].parallelism.num_gpus):
        size = server[2].parallelism.num_gpus
        if used + size > per_node and used:
            node, used = node + 1, 0
        count = num_nodes(size, hardware)
        gpus = range(per_node) if count > 1 else range(used, used + size)
        found[server[:2]] = tuple(range(node, node + count)), tuple(gpus)
        node, used = (node + count, 0) if count > 1 else (node, used + size)
    if deployment.num_gpus > hardware.num_gpus or (node + bool(used)) * per_node > hardware.num_gpus:
        raise ConfigError(
            f"disaggregation: {deployment.num_context_servers} x {deployment.context.parallelism.num_gpus} GPUs for "
            f"contexts and {deployment.num_generation_servers} x {deployment.generation.parallelism.num_gpus} for "
            f"generation do not fit the {hardware.num_gpus} of {hardware.name}; use fewer servers, or smaller ones"
        )
    return [
        PlacedServer(
            kind=kind, number=number, config=config, nodes=found[kind, number][0], gpus=found[kind, number][1],
            port=first_port + position,
        )
        for position, (kind, number, config) in enumerate(servers)
    ]  # fmt: skip
