"""`tpw measure`: one configuration at each load, of an engine that is started here or of a server that already runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.host import Prepared, hardware_of, prepare, with_default_knobs
from pipeline.cli.running import run_study
from pipeline.config import load_study
from pipeline.errors import ConfigError
from pipeline.meter.visible_gpus import visible_gpus
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus

ATTACHED = {
    "engine": "attached",
    "parallelism": "single",
    "batching": "default",
    "workload": "chat_1k_1k",
    "plan": "quick",
}
"""Choices for a server on GPUs, where the user named none."""

OWN = ("url", "gpus", "num_gpus", "rendered")
"""Words of a server that runs; all others are the study's."""


def measure(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="url=http://host:port gpus=UUID,... group=choice")
    ] = None,
) -> None:
    """Measure one configuration, or a running server (url=), at every load of the workload.

    Raises:
        ConfigError: If the axes span several configurations, or the GPUs of the server are not named.
        Exit: With status 1 if it could not be measured.
    """
    from pipeline.repeat import measure_once, only_config

    words = list(overrides or [])
    is_attached = any(word.startswith(("url=", "engine.url=")) for word in words)
    if not is_attached and any(word.startswith("gpus=") for word in words):
        raise ConfigError("gpus=: only with url=, the server that runs on them; else use CUDA_VISIBLE_DEVICES")
    prepared = attached(words) if is_attached else with_default_knobs(prepare(words))
    only_config(prepared.study)  # before anything is announced or written
    study = run_study(prepared, measure_once, 1)
    if Store(Path(study.results_dir)).trials(study.id)[-1].status is not TrialStatus.OK:
        raise typer.Exit(1)


def attached(words: Sequence[str]) -> Prepared:
    """The study of a server that someone else runs.

    `rendered` is the folder of `tpw render` that it was started from, and `num_gpus` how many GPUs that one reserves.

    Raises:
        ConfigError: If its GPUs are not named, or are not `num_gpus`, or its weights' format is not declared.
    """
    given = {word.lstrip("+~").split("=", 1)[0]: word.partition("=")[2] for word in words}
    rest = [word for word in words if word.partition("=")[0] not in OWN]
    gpus = [gpu.strip() for gpu in given.get("gpus", "").strip("[]").split(",") if gpu.strip()]
    choices = {"engine": "attached", "precision.kv_cache": "auto", "engine.url": f"'{given.get('url', '')}'"}
    choices |= {"engine.gpus": str(gpus)} if gpus else {}  # each in quotes, so that an index is no number
    choices |= {"engine.knobs.rendered": f"'{given['rendered']}'"} if "rendered" in given else {}  # nor is a hash
    if given.get("num_gpus", str(len(gpus))) != str(len(gpus)):
        raise ConfigError(
            f"gpus={','.join(gpus)}: names {len(gpus)} GPUs, and the deployment reserves num_gpus={given['num_gpus']}; "
            "name all of them, for all their energy counts"
        )
    if given.get("hardware") == "cpu":
        choices |= {"parallelism": "single", "batching": "default"}
    elif not gpus:
        raise ConfigError(
            "gpus=: name the GPUs that the deployment reserves, by UUID or index (nvidia-smi -L), or hardware=cpu"
        )
    else:
        if not {"precision", "precision.weights"} & given.keys():
            raise ConfigError("precision=: a server does not tell its weights' format; declare it, e.g. precision=fp8")
        choices |= {**ATTACHED, "parallelism.tp": str(len(gpus))}
        seen = visible_gpus()
        choices |= {"hardware": hardware_of(seen[0].name)} if seen else {}
    completed = (*(f"{key}={value}" for key, value in choices.items() if key not in given), *rest)
    return Prepared(study=load_study(completed), overrides=completed)
