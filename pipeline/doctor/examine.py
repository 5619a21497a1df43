"""All checks, in the order in which their answers depend on each other."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.doctor import machine
from pipeline.doctor.finding import Finding, findings
from pipeline.doctor.gpus import look
from pipeline.doctor.model import model_findings
from pipeline.doctor.runtime import runtime_findings
from pipeline.doctor.study import study_findings
from pipeline.engine.catalog import ENGINES
from pipeline.study import Study


def examine(study: Study, environ: Mapping[str, str] = os.environ, nvml: Any = None) -> Iterator[Finding]:
    """Look at this machine for a study, one finding at a time as they come.

    Args:
        study: What would be run.
        environ: Environment variables; CUDA_VISIBLE_DEVICES says which GPUs are visible.
        nvml: Module with the interface of pynvml; None imports it.
    """
    yield from findings("python", machine.python)
    yield from findings("cores", machine.cores)
    yield from findings("clock", machine.clock)
    yield from findings("other load", machine.other_load)
    yield from findings("open files", partial(machine.open_files, study))
    yield from findings("disk", partial(machine.disk, study))
    yield from findings("CPU energy", partial(machine.cpu_energy, study))
    gpus = look(study, environ, nvml)
    yield from gpus.findings
    has_runtime = False
    for finding in runtime_findings(study, gpus):
        has_runtime |= finding.subject == "engine" and finding.state != "problem"
        yield finding
    if has_runtime:  # as a sweep does, keys are those of the version that runs
        version = study.engine.version or ENGINES[study.engine.name].availability(study).version
        study = replace(study, engine=replace(study.engine, version=version))
    yield from study_findings(study, gpus)
    yield from model_findings(study, gpus, has_runtime=has_runtime)
