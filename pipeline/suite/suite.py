"""A suite as a file: configs and loads to measure again, and all that their rows must share to join."""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline import __version__
from pipeline.choose.conditions import Pool
from pipeline.engine_config import EngineConfig, Value, content_hash
from pipeline.errors import ConfigError, StoreError
from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.recompose import overrides_of
from pipeline.repeat import on_gpu
from pipeline.resume import study_of
from pipeline.rig.protocol import Rig
from pipeline.study import Study
from pipeline.suite.pick import Pick

SCHEMA_VERSION = 1

OF_A_MACHINE = ("engine.", "search.", "slo", "study=", "model.path=", "plan.starts=", "hardware.num_gpus",
                "workload.concurrency=", "workload.request_rate_per_s=")  # fmt: skip
"""Overrides that a suite leaves to whoever runs it, or gives for each config."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Member:
    """One config of a suite, and its loads.

    Attributes:
        config: Keyed by conf path; what is not set is the engine's default.
        config_hash: Its identity.
        loads: Concurrency, or requests/s of an open loop.
        case_ids: Of each load.
        is_winner: Whether the best load of the choice is among them.
    """

    config: dict[str, Any]
    config_hash: str
    loads: list[int | float]
    case_ids: list[str]
    is_winner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Suite:
    """What is measured again.

    Attributes:
        name: Begins the names of its studies.
        overrides: What its rows share, as `tpw measure` takes it.
        members: Configs.
        made_from: Studies whose rows it was picked from.
        tolerance: How far below the front its cases may lie.
    """

    name: str
    overrides: list[str]
    members: list[Member]
    made_from: list[str] = field(default_factory=list)
    tolerance: float | None = None
    tool_version: str | None = None
    schema_version: int = SCHEMA_VERSION


def suite_of(name: str, picks: Sequence[Pick], pool: Pool, tolerance: float) -> Suite:
    """A suite from its cases.

    Raises:
        ConfigError: If conf/ no longer composes their study, or no engine of theirs can be started here.
    """
    study = study_of(pool.trials[picks[0].point.rows[-1].trial_id])
    if study.engine.name == "attached" or pool.rows[0].origin != "own":
        raise ConfigError(
            f"suite {name}: its rows are of engines that were not started here; to measure a server again use "
            "tpw measure url=..."
        )
    axes = tuple(f"{key}=" for key in study.axes)
    shared = [each for each in overrides_of(study) if not each.startswith((*OF_A_MACHINE, *axes))]
    members = []
    for config_hash, own in grouped(picks, lambda each: each.candidate.config.config_hash).items():
        ladder = sorted(own, key=lambda each: each.point.load)
        rows = [each.point.rows[-1] for each in ladder]
        members.append(
            Member(
                config=json.loads(own[0].candidate.config_json),
                config_hash=config_hash,
                loads=[row.concurrency or row.request_rate_per_s or 0 for row in rows],
                case_ids=[row.case_id for row in rows],
                is_winner=any(each.is_winner for each in own),
            )
        )
    return Suite(
        name=name, overrides=shared, members=members, made_from=list(pool.studies), tolerance=tolerance,
        tool_version=__version__,
    )  # fmt: skip


def write_suite(folder: Path, suite: Suite) -> Path:
    """Write a suite to a new file of its name.

    Raises:
        ConfigError: If there is one already: a suite that changes is another series.
        StoreError: If it cannot be written.
    """
    path = folder / f"{suite.name}.yaml"
    text = yaml.safe_dump(TypeAdapter(Suite).dump_python(suite, mode="json"), sort_keys=False, width=120)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(f"# Measure it again: tpw suite run {path} engine.python=PYTHON (docs/track.md)\n{text}")
    except FileExistsError as error:
        raise ConfigError(
            f"{path}: is there already, and a suite that changes is another series; choose another name"
        ) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def read_suite(path: Path) -> Suite:
    """Read a suite.

    Raises:
        ConfigError: If the file cannot be read, or is no suite.
    """
    try:
        suite = TypeAdapter(Suite).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); `tpw suite pick` writes one"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: no suite: {where}: {first['msg']}; `tpw suite pick` writes one") from error
    if suite.schema_version > SCHEMA_VERSION:
        raise ConfigError(f"{path}: schema_version={suite.schema_version} is newer than {SCHEMA_VERSION}; update")
    if not suite.members:
        raise ConfigError(f"{path}: members is empty: nothing to measure; `tpw suite pick` writes one")
    return suite


def words_of(suite: Suite, member: Member, words: Sequence[str]) -> tuple[str, ...]:
    """The overrides that measure one config of a suite at its loads, as `tpw measure` takes them, but for its axes.

    Nothing is owed, so that no load is left out for being slower than it was.
    """
    shared = [_under_present_name(each) for each in suite.overrides]
    ladder = "request_rate_per_s" if "workload.arrival=poisson" in shared else "concurrency"
    loads = [f"workload.{ladder}=[{','.join(f'{load:g}' for load in member.loads)}]"] if any(member.loads) else []
    rig = [] if "rig=modelled" in shared else ["rig=served"]
    return (*shared, *rig, *loads, "slo=none", *words)


def only(suite: Suite, member: Member, study: Study) -> Study:
    """A study of one config of a suite, whatever its axes were.

    Raises:
        ConfigError: If another config or case would come of it than the suite's.
    """
    try:
        config = EngineConfig.from_axes(study.engine.name, {key: _value(each) for key, each in member.config.items()})
    except ValidationError as error:
        raise ConfigError(f"suite {suite.name}: config {member.config}: {error.errors()[0]['msg']}") from error
    own = config.requested()
    study = dataclasses.replace(study, axes={key: (own.get(key),) for key in (*study.axes, *own)})
    case_ids = [study.case_id(config, point) for point in study.workload.ladder]
    is_renamed = any(_under_present_name(each) != each for each in suite.overrides)
    if config.config_hash != member.config_hash or (case_ids != member.case_ids and not is_renamed):
        raise ConfigError(
            f"suite {suite.name}: what would be measured are other cases than its own (config {config.config_hash} for "
            f"{member.config_hash}, cases {', '.join(case_ids)} for {', '.join(member.case_ids)}); leave out what "
            "changes model, hardware, workload, weights or config"
        )
    return study


def on_release(suite: Suite, member: Member, study: Study, rig: Rig) -> Study:
    """The study under a name that holds suite, config, release and GPU: one study holds rows of one of each."""
    image = content_hash(study.engine.image)[:8] if study.engine.image else None
    parts = (suite.name, member.config_hash[:8], rig.engine_version, image)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(part for part in parts if part))
    return on_gpu(dataclasses.replace(study, id=name), rig.first_gpu)


def _under_present_name(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}={present_name(value)}" if key == "model" else override


def _value(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value  # a value of an axis that takes lists
