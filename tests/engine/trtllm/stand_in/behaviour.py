"""What a stand-in is told: how fast it starts, what fits, and which faults it has for which settings.

It lies as behaviour.json in the environment's folder, so that it also reaches a server that inherits no variables.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

FILE = "behaviour.json"


class Fault(StrEnum):
    """What can go wrong."""

    OUT_OF_MEMORY = "it runs out of memory as it starts"
    HANG_AT_START = "it never finishes loading"
    DIE_AT_START = "it dies as it starts"
    UNHEALTHY = "it listens, and is never healthy"
    REFUSE = "it refuses every request"
    CRASH = "it dies under load"
    SLOW = "it takes its time for every step"
    COMPILE = "it compiles kernels under load"
    DEAF_CHILD = "it leaves a child that SIGTERM does not end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a stand-in behaves.

    Attributes:
        start_s: Time to load and tune.
        tuned_start_s: The same with an autotuner cache.
        num_gpus: GPUs of the machine.
        gpu_memory_bytes: Of each of them.
        weight_bytes: Of the model, over all GPUs; with 0 it always fits.
        absent_keys: Keys of the YAML file that this version does not have, e.g. `telemetry_config`.
        cli_wins: Whether what was typed beats the YAML file, as from PR 14812 on.
        faults: Fault -> settings (dotted paths) that it comes with; empty for any.
        crash_after_tokens: What Fault.CRASH still generates.
        slow_step_s: What Fault.SLOW adds to a step.
        power_dir: Where it publishes the power of its GPUs, see power.py; None for nowhere.
    """

    start_s: float = 0.2
    tuned_start_s: float = 0.05
    num_gpus: int = 8
    gpu_memory_bytes: int = 80 * 2**30
    weight_bytes: int = 0
    absent_keys: tuple[str, ...] = ()
    cli_wins: bool = True
    faults: Mapping[Fault, Mapping[str, Any]] = field(default_factory=dict)
    crash_after_tokens: int = 100
    slow_step_s: float = 0.2
    power_dir: str | None = None

    def has(self, fault: Fault, settings: Mapping[str, Any]) -> bool:
        """Whether a server with these settings has a fault."""
        when = self.faults.get(fault)
        return when is not None and all(at(settings, path) == value for path, value in when.items())

    def write(self, folder: Path) -> None:
        """Tell the environment in a folder; servers that run already know no better."""
        (folder / FILE).write_text(json.dumps(dataclasses.asdict(self)))


def read_behaviour(folder: Path | None = None) -> Behaviour:
    """What the environment in a folder, by default this interpreter's, was told."""
    told = json.loads(((folder or Path(sys.prefix)) / FILE).read_text())
    told["faults"] = {Fault(fault): when for fault, when in told["faults"].items()}
    return Behaviour(**told | {"absent_keys": tuple(told["absent_keys"])})


def at(settings: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    value: Any = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
