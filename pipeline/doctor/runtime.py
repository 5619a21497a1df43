"""The engine's own environment, asked as the engine will find it: what is there, which version, what it may use."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.doctor.finding import Finding, findings, not_applicable, ok, problem, warning
from pipeline.doctor.gpus import Gpus
from pipeline.doctor.machine import SPARE_FILES
from pipeline.engine.catalog import ENGINES
from pipeline.engine.process import check_port_free, free_port
from pipeline.engine.runtime.ask import ask
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.protocol import ALL_GPUS
from pipeline.engine.side.environment import MARK
from pipeline.errors import EngineError
from pipeline.study import EngineSettings, Study

SCRIPT = Path(__file__).parents[1] / "engine" / "side" / "environment.py"
TIMEOUT_S = 180.0
"""A container's first start reads its image from disk."""

CUDA_MAJOR = (((1, 1), 13), ((1, 0), 12))
"""First TensorRT-LLM release, newest first, and the CUDA that its containers and wheels are built with. Source:
docs/source/release-notes.md names the base images (1.0: pytorch:25.06, 1.1: 25.10, 1.2: 25.12);
triton-inference-server/tensorrtllm_backend PR 820 has their CUDA (25.06: 12.9, 25.10: 13.0)."""

DRIVER_OF_CUDA = {12: "R525", 13: "R580"}
"""First driver branch that runs a CUDA release of this major version. Source: CUDA Toolkit release notes, table of
minor version compatibility."""

MIN_SHM_BYTES = 2**30
"""What NVIDIA's documentation of its containers advises (--shm-size=1g or --ipc=host); NCCL's ranks share it."""


def runtime_findings(study: Study, gpus: Gpus) -> Iterator[Finding]:
    """Everything about the runtime; without one there is only that."""
    settings = study.engine
    if settings.name == "attached":
        yield not_applicable("runtime", "engine=attached: someone else started it")
        return
    yield from findings("port", lambda: _port(settings))
    found = list(findings("runtime", lambda: _runtime(settings)))
    yield from found
    if any(finding.state == "problem" for finding in found):
        return
    yield from findings("engine", lambda: _engine(study, gpus))
    yield from findings("environment", lambda: _environment(study, gpus))


def _runtime(settings: EngineSettings) -> Finding:
    why_not = find_runtime(settings).why_not()
    what = f"engine.runtime={settings.runtime}: {settings.image or settings.python}"
    if why_not is not None:
        text, _, fix = why_not.partition("; ")
        setting = "engine.python" if settings.runtime == "local" else "engine.runtime"
        return problem("runtime", text, fix or f"do that, or set {setting} to one that works here")
    return ok("runtime", what)


def _engine(study: Study, gpus: Gpus) -> Iterator[Finding]:
    """The engine's version, whether it is known, and whether the driver is new enough for it."""
    engine = ENGINES[study.engine.name]
    availability = engine.availability(study)
    if availability.why_not is not None:
        text, _, fix = availability.why_not.partition("; ")
        yield problem("engine", text, fix or None)
        return
    version, asked = availability.version, study.engine.version
    if version is not None and asked is not None and asked != version:
        yield problem(
            "engine",
            f"engine.version={asked}: the runtime has {version}",
            "leave engine.version=null to render for that, or give the runtime (engine.python, engine.image) that has "
            "the other",
        )
        return
    if version is None:
        yield warning("engine", f"{engine.name} of an unknown version", "rows will not name it; reinstall the engine")
    elif not engine.tested_version(version):
        yield warning(
            "engine",
            f"{engine.name} {version} is not a version that this project was checked against",
            "rows say engine_untested; compare a row or two with the engine's own benchmark",
        )
    else:
        yield ok("engine", f"{engine.name} {version}")
    if engine.name == "trtllm" and version is not None and gpus.driver is not None:
        yield _cuda(study, version, gpus.driver.cuda[0])


def _cuda(study: Study, version: str, driver_major: int) -> Finding:
    release = tuple(int(part) for part in version.split(".")[:2])
    needed = next((major for first, major in CUDA_MAJOR if release >= first), None)
    if needed is None:
        return not_applicable("CUDA", f"what TensorRT-LLM {version} needs is not known here")
    if driver_major >= needed:
        return ok("CUDA", f"TensorRT-LLM {version} needs CUDA {needed}, the driver runs {driver_major}")
    text = f"TensorRT-LLM {version} needs CUDA {needed}, the driver runs {driver_major}"
    fix = f"install driver {DRIVER_OF_CUDA[needed]} or newer"
    if study.engine.runtime == "local":
        return problem("CUDA", text, fix)
    return warning("CUDA", text, f"{fix}; a container's compatibility libraries may do on data-centre GPUs")


def _environment(study: Study, gpus: Gpus) -> Iterator[Finding]:
    """What the environment gives the engine.

    Raises:
        EngineError: If it does not answer.
    """
    answer = ask(
        study.engine,
        ("python", "-c", SCRIPT.read_text("utf-8")),
        timeout_s=TIMEOUT_S,
        gpus=ALL_GPUS if gpus.states else (),
    )
    marked = [line for line in answer.stdout.splitlines() if line.startswith(MARK)]
    if not marked:
        last = (answer.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise EngineError(f"python ended with status {answer.returncode} there: {last}; try it by hand")
    facts = json.loads(marked[-1].removeprefix(MARK))
    if study.hardware.kind == "gpu":
        yield _gpus_there(study, facts, gpus)
    yield from _shared(study, facts)
    yield _files(study, facts)


def _gpus_there(study: Study, facts: dict[str, Any], gpus: Gpus) -> Finding:
    if not gpus.states:
        return not_applicable("engine's GPUs", "there are none to show")
    if facts["num_gpus"]:
        return ok("engine's GPUs", f"CUDA shows {facts['num_gpus']} there")
    fixes = {
        "local": "see whether libcuda.so.1 of the driver is on the library path",
        "docker": "install the NVIDIA container toolkit and run nvidia-ctk runtime configure --runtime=docker",
        "enroot": "install libnvidia-container and enroot's hook 98-nvidia.sh",
    }
    text = f"CUDA shows none there: {facts['cuda_error'] or 'it counts 0'}"
    return problem("engine's GPUs", text, fixes[study.engine.runtime])


def _shared(study: Study, facts: dict[str, Any]) -> Iterator[Finding]:
    """What several ranks need: MPI, shared memory, locked memory."""
    if study.engine.name == "trtllm":
        yield _mpi(facts)
    degrees = [value for key in ("tp", "pp", "cp") for value in study.axes.get(f"parallelism.{key}", (1,)) if value]
    if all(degree == 1 for degree in degrees):
        yield not_applicable("ranks", "one GPU per engine: no shared memory between ranks")
        return
    shm_bytes, memlock_bytes = facts["shm_bytes"], facts["memlock_bytes"]
    if shm_bytes is None or shm_bytes < MIN_SHM_BYTES:
        size = "no /dev/shm" if shm_bytes is None else f"{shm_bytes / 2**20:.0f} MiB in /dev/shm"
        yield warning("shared memory", size, "mount a larger one; ranks may die or fall back to slower paths")
    else:
        yield ok("shared memory", f"{shm_bytes / 2**30:.1f} GiB in /dev/shm")
    if memlock_bytes is None:
        yield ok("locked memory", "unlimited")
    else:
        yield warning(
            "locked memory",
            f"at most {memlock_bytes / 2**20:.0f} MiB per process",
            "ulimit -l unlimited (memlock in limits.conf): ranks register buffers that must not be swapped out",
        )


def _mpi(facts: dict[str, Any]) -> Finding:
    """TensorRT-LLM starts the one worker of a single GPU by MPI too (executor/executor.py, GenerationExecutor)."""
    if facts["mpi"] is not None:
        return ok("MPI", facts["mpi"])
    return problem(
        "MPI",
        f"mpi4py does not load there ({facts['mpi_error']}), and TensorRT-LLM starts every rank with it, even one",
        "install Open MPI and mpi4py in the engine's environment, or use NVIDIA's container",
    )


def _files(study: Study, facts: dict[str, Any]) -> Finding:
    """The server's soft limit counts: it does not raise it itself."""
    highest = max((point.concurrency or 0 for point in study.workload.ladder), default=0)
    nofile = facts["nofile"]
    if nofile is not None and nofile < highest + SPARE_FILES:
        return problem(
            "engine's files",
            f"at most {nofile} open at once, {highest} requests in flight need {highest + SPARE_FILES}",
            f"ulimit -n {highest + SPARE_FILES} where the study is started, or a lower workload.concurrency",
        )
    return ok("engine's files", f"{'unlimited' if nofile is None else nofile}, for {highest} requests in flight")


def _port(settings: EngineSettings) -> Finding:
    if settings.port is None:
        free_port(settings.host)
        return ok("port", f"any free one of {settings.host}")
    check_port_free(settings.host, settings.port)
    return ok("port", f"{settings.host}:{settings.port} is free")
