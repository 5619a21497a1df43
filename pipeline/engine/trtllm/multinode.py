"""One engine over several machines: a process per GPU, started by srun or mpirun through trtllm-llmapi-launch.

Rendered only; not run by this project. Sources: TensorRT-LLM's llmapi/trtllm-llmapi-launch,
examples/llm-api/llm_mgmn_trtllm_serve.sh, examples/disaggregated/README.md and
docs/source/commands/trtllm-serve/trtllm-serve.rst (srun with --mpi=pmix and the container options of pyxis).
"""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.engine.protocol import Rendered
from pipeline.engine.script import assignments, words
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.study import Hardware, Study

LAUNCH = "{bin}/trtllm-llmapi-launch"

ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  # as NVIDIA's examples do: clients and other machines reach it there
"""Where a server of several machines listens, on the first of them."""

SLURM_NOTE = (
    "CONTAINER_IMAGE=FILE.sqsh or REGISTRY#NAME:TAG has srun run it in that image (pyxis, which takes no digest); else "
    "TensorRT-LLM must be on the PATH of every machine. This folder and the model must lie where all machines see them."
)
"""Source: NVIDIA/pyxis; NVIDIA/enroot, src/docker.sh for how an image is named."""

ENERGY_NOTE = (
    "Its energy is that of the GPUs of all its machines; a meter sees those of its own only, so what tpw measure finds "
    "on one of them leaves the others out."
)

_NO_SPACES = """case "${MODEL}" in /*) ;; *) MODEL="${PWD}/${MODEL}" ;; esac
case "${HERE}${MODEL}" in
*[[:space:]]*) echo "serve.sh: trtllm-llmapi-launch splits arguments at spaces: move ${HERE} or ${MODEL}" >&2; exit 2 ;;
esac"""
"""The launcher passes its arguments on unquoted; other machines need the model's whole path."""

_IN_CONTAINER = """seen="${MODEL%/}"
case "${seen}" in */snapshots/*) seen="${seen%/snapshots/*}" ;; esac
container=()
draft=${DRAFT_MODEL:+",${DRAFT_MODEL}:${DRAFT_MODEL}"}
if [ -n "${CONTAINER_IMAGE:-}" ]; then
    container=("--container-image=${CONTAINER_IMAGE}" "--container-mounts=${seen}:${seen},${HERE}:${HERE}${draft}")
fi"""
"""A snapshot in the Hugging Face cache is links into its repository's blobs, so all of the repository is mounted."""


def why_not_here(config: EngineConfig, study: Study) -> str | None:
    """Why one machine cannot start a config, of any engine, or None."""
    per_node, num_gpus = study.hardware.num_gpus_per_node, config.parallelism.num_gpus
    if per_node is None or num_gpus <= per_node:
        return None
    return (
        f"parallelism: {num_gpus} GPUs are more than the {per_node} of one machine of {study.hardware.name}; a config "
        "over several machines is rendered only: tpw render writes its folder, whose serve.sh starts it"
    )


def num_nodes(num_gpus: int, hardware: Hardware) -> int:
    """Machines that an engine of so many GPUs needs: part of one, or whole ones.

    TensorRT-LLM takes as a rank's GPU its number modulo the GPUs of a machine (mapping.py: local_rank).

    Raises:
        ConfigError: If it would need part of another machine.
    """
    per_node = hardware.num_gpus_per_node or num_gpus
    if num_gpus > per_node and num_gpus % per_node:
        raise ConfigError(
            f"parallelism: {num_gpus} GPUs over machines of {per_node} would use one of them in part, where "
            f"TensorRT-LLM gives ranks the wrong GPUs; use a multiple of {per_node}"
        )
    return max(1, num_gpus // per_node)


def across_nodes(rendered: Rendered, config: EngineConfig, study: Study) -> Rendered:
    """The same server started on several machines; unchanged where one is enough.

    Args:
        rendered: `trtllm-serve` on one machine.
        config: Its config.
        study: Names hardware and image.

    Raises:
        ConfigError: If its GPUs do not fill their machines, or a path has a space.
    """
    num_gpus = config.parallelism.num_gpus
    if num_nodes(num_gpus, study.hardware) == 1:
        return rendered
    served = [LAUNCH, *(ALL_ADDRESSES if part == "{host}" else part for part in rendered.argv)]
    exported = [part for name in sorted(rendered.env) for part in ("-x", name)]
    per_node = f"ppr:{study.hardware.num_gpus_per_node}:node"
    mpirun = words(["mpirun", "-n", str(num_gpus), "--map-by", per_node, *exported])
    commands = [
        *slurm_setup(study),
        *(f"export {text}" for text in assignments(rendered.env)),
        "case ${LAUNCHER:-srun} in",
        f"srun) {allocation(num_nodes(num_gpus, study.hardware), study)}",
        f"    exec {srun(num_gpus, study)} {words(served)} ;;",
        f'mpirun) exec {mpirun} --hostfile "${{HOSTFILE:?names the machines, a line each}}" \\',
        f"    {words(served)} ;;",
        '*) echo "serve.sh: LAUNCHER=${LAUNCHER}: allowed are srun and mpirun" >&2; exit 2 ;;',
        "esac",
    ]
    files = rendered.files | {"serve.sh": "\n".join(commands)}
    return dataclasses.replace(rendered, argv=("srun", *_options(num_gpus, study), *served), files=files)


def slurm_setup(study: Study) -> list[str]:
    """What a script does before the first `srun`.

    Raises:
        ConfigError: If a path has a space.
    """
    image = _image(study)
    for key, path in (("model.path", study.model.path), ("engine.image", image)):
        if path is not None and len(path.split()) > 1:
            raise ConfigError(f"{key}={path!r}: trtllm-llmapi-launch splits its arguments at spaces; use another path")
    default = [] if image is None else [f"CONTAINER_IMAGE=${{CONTAINER_IMAGE:-{shlex.quote(image)}}}"]
    return [_NO_SPACES, *default, _IN_CONTAINER]


def allocation(num_machines: int, study: Study) -> str:
    """Shell text that asks for so many whole machines where there is no job: outside one, `srun` would get no GPUs."""
    wanted = f"run it in salloc --nodes={num_machines} --gpus-per-node={study.hardware.num_gpus_per_node}"
    return f': "${{SLURM_JOB_NODELIST:?{wanted}}}"'


def srun(num_gpus: int, study: Study, *, options: Sequence[str] = ()) -> str:
    """Shell text that starts an engine of so many GPUs, a task each, in the container of `slurm_setup`.

    The number of tasks is said, for trtllm-llmapi-launch takes it from SLURM_NTASKS, which a shell may have left over.

    Args:
        num_gpus: Of the engine.
        study: Names the hardware.
        options: Further options, as shell text.

    Raises:
        ConfigError: As `num_nodes`.
    """
    return " ".join(["srun", *options, words(_options(num_gpus, study)), '${container[@]+"${container[@]}"}'])


def _options(num_gpus: int, study: Study) -> list[str]:
    nodes = num_nodes(num_gpus, study.hardware)
    return [f"--nodes={nodes}", f"--ntasks={num_gpus}", f"--ntasks-per-node={num_gpus // nodes}", "--mpi=pmix"]


def _image(study: Study) -> str | None:
    """The study's image where it is a file, the only kind by which srun gets the same bytes as Docker by digest."""
    image = study.engine.image
    is_file = study.engine.runtime == "enroot" and image is not None and ("/" in image or image.endswith(".sqsh"))
    return str(Path(image).expanduser().absolute()) if image is not None and is_file else None
