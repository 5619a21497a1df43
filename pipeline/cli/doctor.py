"""`tpw doctor`: what this machine lacks for a study, and what to do. Changes nothing."""

import contextlib
import dataclasses
import json
import resource
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from pipeline.cli.host import GPU_CHOICES, MODELLED_HARDWARE, hardware_of
from pipeline.cli.terminal import terminal
from pipeline.compose import compose_conf
from pipeline.config import load_study
from pipeline.doctor.examine import examine
from pipeline.doctor.finding import Finding, State, refused
from pipeline.errors import ConfigError, MeterError
from pipeline.meter.visible_gpus import Gpu, visible_gpus
from pipeline.study import Study

GPU_MODEL = "gpt-oss-120b"
"""On a machine with GPUs, where the user names no model."""

LABELS = {
    State.OK: ("ok", "green"),
    State.WARNING: ("warning", "yellow"),
    State.PROBLEM: ("PROBLEM", "bold red"),
    State.NOT_APPLICABLE: ("-", "dim"),
}
LABEL_WIDTH, SUBJECT_WIDTH = 8, 16
TEXT_AT = LABEL_WIDTH + SUBJECT_WIDTH


def doctor(
    overrides: Annotated[list[str] | None, typer.Argument(help="group=choice or key=value")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Say whether this machine is ready for a study, and what to do where it is not.

    Raises:
        Exit: With status 1 if there is a problem.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # as a sweep does before it starts an engine
    study, early = compose(overrides or [])
    console, found = terminal(), list[Finding]()
    if not as_json:
        console.print(f"for engine={study.engine.name} model={study.model.name} hardware={study.hardware.name}")
    for finding in (*early, *examine(study)):
        found.append(finding)
        if not as_json:
            print_finding(console, finding)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=1))
    else:
        console.print(summary(found))
    if any(finding.state is State.PROBLEM for finding in found):
        raise typer.Exit(1)


def compose(overrides: Sequence[str]) -> tuple[Study, list[Finding]]:
    """The study that these overrides mean on this machine, served even if there is nothing to serve it with.

    Without any, it is the embedded engine's on a machine without GPUs, and TensorRT-LLM's on one with them. Where the
    GPUs cannot be asked, or are of a kind that is not known, that is a finding and the study is for b200.

    Raises:
        ConfigError: If the overrides are wrong.
    """
    given = {text.lstrip("+~").split("=", 1)[0]: text.partition("=")[2] for text in overrides}
    found: list[Finding] = []
    gpus: tuple[Gpu, ...] = ()
    with contextlib.suppress(ConfigError, MeterError):  # which the checks of the GPUs will say
        gpus = visible_gpus()
    wants_gpu = bool(gpus) or "engine" in given or given.get("hardware", "cpu") != "cpu"
    is_for_gpu = "model" not in given and given.get("engine") != "openvino" and wants_gpu
    choices = {"model": GPU_MODEL} if is_for_gpu else {}
    model = [f"model={choices['model']}"] if choices else [text for text in overrides if text.startswith("model=")]
    engines: list[str] = compose_conf(model)["model"]["engines"]
    if "openvino" in engines:
        return load_study(overrides), found
    choices |= {group: choice for group, choice in GPU_CHOICES.items() if group not in given}
    choices |= {} if "engine" in given else {"engine": engines[0]}
    if "hardware" not in given:
        choices["hardware"] = MODELLED_HARDWARE
        try:
            choices["hardware"] = hardware_of(gpus[0].name) if gpus else MODELLED_HARDWARE
        except ConfigError as error:
            found.append(refused("hardware", error))
    if gpus and "hardware.num_gpus" not in given:
        choices["hardware.num_gpus"] = str(len(gpus))
    return load_study([*(f"{key}={value}" for key, value in choices.items()), *overrides]), found


def print_finding(console: Console, finding: Finding) -> None:
    """What was found, and below it what to do."""
    label, style = LABELS[finding.state]
    text_style = "dim" if finding.state is State.NOT_APPLICABLE else ""
    lines = [(line, text_style) for line in _wrapped(finding.text, console.width)]
    lines += [(line, style) for line in _wrapped(f"do: {finding.fix}", console.width) if finding.fix is not None]
    for number, (line, line_style) in enumerate(lines):
        head = Text(label.ljust(LABEL_WIDTH), style) + Text(finding.subject.ljust(SUBJECT_WIDTH))
        console.print((head if number == 0 else Text(" " * TEXT_AT)) + Text(line, line_style), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that fit beside the label and the subject; paths stay whole."""
    return textwrap.wrap(text, max(20, width - TEXT_AT), break_long_words=False, break_on_hyphens=False) or [""]


def summary(found: Sequence[Finding]) -> str:
    """How many findings of which state."""
    counts = Counter(finding.state for finding in found)
    named = {State.PROBLEM: "problem", State.WARNING: "warning"}
    bad = [f"{counts[state]} {name}{'' if counts[state] == 1 else 's'}" for state, name in named.items()]
    return ", ".join([*bad, f"{counts[State.OK]} ok", f"{counts[State.NOT_APPLICABLE]} not applicable"])
