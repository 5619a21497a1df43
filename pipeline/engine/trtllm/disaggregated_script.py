"""The script that starts a split deployment: every server on GPUs of its own, then the orchestrator; all end together.

Sources: TensorRT-LLM's examples/disaggregated/README.md, and slurm/benchmark/submit.py and start_server.sh there.
"""

import math
from collections.abc import Mapping, Sequence

from pipeline.engine.protocol import Rendered
from pipeline.engine.script import assignments, words
from pipeline.engine.trtllm.multinode import ALL_ADDRESSES, LAUNCH, allocation, slurm_setup, srun
from pipeline.engine.trtllm.placement import PlacedServer, node_placeholder
from pipeline.study import Study

REQUEST_TIMEOUT_S = 7200
"""How long the orchestrator waits for an answer: what NVIDIA's start_server.sh sets; by default 180 s, less than a long
answer takes under load."""

_STOP_ALL = """set -m  # every server is a process group of its own
pids=()
stop() {
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill -TERM -- "-${pid}" 2>/dev/null || true; done
    wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM"""

_UNTIL_ONE_ENDS = """wait -n || true
echo "serve.sh: a server has ended, so all are stopped; its log is in ${HERE}" >&2
exit 1"""


def is_on_one_node(servers: Sequence[PlacedServer]) -> bool:
    """Whether one machine holds them all."""
    return {node for server in servers for node in server.nodes} == {0}


def commands(servers: Sequence[PlacedServer], rendered: Mapping[str, Rendered], study: Study) -> list[str]:
    """What serve.sh does, a line each.

    Args:
        servers: All of them, placed.
        rendered: What a server of each kind is rendered to.
        study: Names hardware, address and image.

    Raises:
        ConfigError: If a path has a space that a start over several machines would trip over.
    """
    is_local = is_on_one_node(servers)
    serve = [
        "{bin}/trtllm-serve", "disaggregated", "-c", "{dir}/disagg.yaml" if is_local else "{dir}/disagg.filled.yaml",
        "-t", str(math.ceil(study.engine.ready_timeout_s)), "-r", str(REQUEST_TIMEOUT_S),
    ]  # fmt: skip
    first = [] if is_local else [f"srun --overlap --nodelist={_nodelist((0,))} --nodes=1 --ntasks=1 --mpi=pmix",
                                 '${container[@]+"${container[@]}"}']  # fmt: skip
    return [
        *(_local_setup(servers) if is_local else _slurm_setup(servers, study)),
        _STOP_ALL,
        *(line for server in servers for line in _start(server, rendered[server.kind], study, is_local=is_local)),
        " ".join([*first, words(serve), "&"]),
        "pids+=($!)",
        _UNTIL_ONE_ENDS,
    ]


def _local_setup(servers: Sequence[PlacedServer]) -> list[str]:
    gpus = [str(gpu) for server in servers for gpu in server.gpus]
    default = ",".join(sorted(gpus, key=int))
    return [
        f'IFS=, read -ra GPUS <<< "${{CUDA_VISIBLE_DEVICES:-{default}}}"',
        f'if [ "${{#GPUS[@]}}" -lt {len(gpus)} ]; then',
        f'    echo "serve.sh: needs {len(gpus)} GPUs, and CUDA_VISIBLE_DEVICES names ${{#GPUS[@]}}" >&2',
        "    exit 2",
        "fi",
        'gpus() { local IFS=,; echo "${GPUS[*]:$1:$2}"; }',
    ]


def _slurm_setup(servers: Sequence[PlacedServer], study: Study) -> list[str]:
    count = max(node for server in servers for node in server.nodes) + 1
    fill = "".join(f' -e "s/{node_placeholder(node)}/${{NODES[{node}]}}/"' for node in range(count))
    return [
        *slurm_setup(study),
        allocation(count, study),
        'mapfile -t NODES < <(scontrol show hostnames "${SLURM_JOB_NODELIST}")',
        f'if [ "${{#NODES[@]}}" -lt {count} ]; then echo "serve.sh: needs {count} nodes" >&2; exit 2; fi',
        f'sed{fill} "${{HERE}}/disagg.yaml" > "${{HERE}}/disagg.filled.yaml"',
    ]


def _start(server: PlacedServer, rendered: Rendered, study: Study, *, is_local: bool) -> list[str]:
    """Start one server in the background, its autotuner cache and log its own."""

    def filled(text: str) -> str:
        for name in rendered.files:
            text = text.replace("{dir}/" + name, f"{{dir}}/{server.kind}_{name}")
        here = "127.0.0.1" if is_local else ALL_ADDRESSES
        own = text.replace("{engine_dir}", "{dir}/" + server.name)
        return own.replace("{host}", here).replace("{port}", str(server.port))

    env = assignments({name: filled(value) for name, value in rendered.env.items()})
    argv = words([filled(part) for part in rendered.argv])
    log = f'> "${{HERE}}/{server.name}/server.log" 2>&1 &'
    if is_local:
        devices, launch = f'"$(gpus {server.gpus[0]} {len(server.gpus)})"', ""
    else:
        devices, launch = ",".join(map(str, server.gpus)), f"{words([LAUNCH])} "
    parts = ["env", f"CUDA_VISIBLE_DEVICES={devices}", *env, f"{launch}{argv}"]
    if not is_local:
        options = ("--overlap", f"--nodelist={_nodelist(server.nodes)}")
        parts = [srun(server.config.parallelism.num_gpus, study, options=options), *parts]
    return [f'mkdir -p "${{HERE}}/{server.name}"', " ".join([*parts, log]), "pids+=($!)"]


def _nodelist(nodes: Sequence[int]) -> str:
    return '"' + ",".join(f"${{NODES[{node}]}}" for node in nodes) + '"'
