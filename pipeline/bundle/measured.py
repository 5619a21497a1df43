"""What was measured and is to be shipped: one start, its rows, and the same bytes rendered again."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.disaggregation import Deployment
from pipeline.engine.autotuner_cache import cache_files, keeps_cache, sha256
from pipeline.engine.catalog import find_engine
from pipeline.engine.protocol import Rendered
from pipeline.engine.trtllm.disaggregated import num_machines, render_deployment
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.record import Row, Trial
from pipeline.score import usable
from pipeline.study import Study
from pipeline.vocabulary import Evidence

SHARED = ("evidence", "boundary", "weights", "gpu_name", "num_gpus", "engine_version", "workload", "plan")
"""Columns that rows behind one number must share."""

SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_KEY)$", re.IGNORECASE)
"""Names of environment variables that hold what nobody else may read: HF_TOKEN, AWS_SECRET_ACCESS_KEY."""

RENDERED_KNOB = "engine.knobs.rendered"
"""Of a server that someone else started: the folder of `tpw render` that it runs (`tpw measure rendered=`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measured start that its rows belong to, and what it was started from.

    Attributes:
        study: As stored with the trial, for the version of the engine that ran.
        trial: The measured start.
        rows: Valid rows of this start, and of other starts of the same bytes.
        config: Its engine config; of a split deployment that of a generation server.
        rendered: Files, argv and env, rendered again and found equal.
        deployment: The split deployment, if it is one.
        num_machines: Machines that it is started on.
        meta: meta.json of its engine folder; empty where that is not here.
        cache: The autotuner's cache as the start left it, by file name.
        cache_sha256: Their hashes as noted then.
    """

    study: Study
    trial: Trial
    rows: tuple[Row, ...]
    config: EngineConfig
    rendered: Rendered
    deployment: Deployment | None = None
    num_machines: int = 1
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cache: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    cache_sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def rendered_hash(self) -> str:
        """Hash of the bytes that were started."""
        return self.rendered.rendered_hash

    @property
    def num_gpus(self) -> int:
        """Devices that it reserves; 0 on a CPU."""
        return self.rows[0].num_gpus

    @property
    def autotuner_cache(self) -> str | None:
        """Whether the measured start was cold or warm; None where it keeps no cache, or that was not recorded."""
        return next((row.autotuner_cache for row in self.rows if row.trial_id == self.trial.trial_id), None)


def measured(
    study: Study,
    trial: Trial,
    rows: Sequence[Row],
    *,
    engines_dir: Path | None = None,
    deployment: Deployment | None = None,
    allow_random_weights: bool = False,
) -> Measured:
    """Check that rows, trial and study are of one start, and render it again.

    Args:
        study: As stored with the trial.
        trial: The measured start.
        rows: Its rows, and those of other starts of the same config.
        engines_dir: Where its engine folder is kept; None: the study's.
        deployment: The split deployment whose rendered folder the rows name, if it is one.
        allow_random_weights: Whether rows of random weights may be shipped.

    Raises:
        ConfigError: If they are not of one start, nothing valid was measured, the weights are random, this version
            renders the config otherwise, or a file that the start left behind is missing or changed.
    """
    rows = _checked_rows(trial, rows, is_random_allowed=allow_random_weights)
    version = trial.engine_version or study.engine.version
    study = dataclasses.replace(study, engine=dataclasses.replace(study.engine, version=version))
    requested = json.loads(trial.config_json)
    if deployment is None:
        if trial.engine == "attached":
            raise ConfigError(
                f"trial {trial.trial_id}: measured a server that someone else started, whose files are not known; "
                "start it through tpw measure without url=, or give the folder that tpw render wrote (--rendered)"
            )
        config = EngineConfig.from_axes(trial.engine, requested)
        rendered, count, measured_hash = find_engine(study).render(config, study), 1, rows[0].rendered_hash
    else:
        if (load := study.workload.name) != rows[0].workload:
            raise ConfigError(
                f"trial {trial.trial_id}: was measured with workload={rows[0].workload}, and what runs was rendered "
                f"for {load}; measure it with that"
            )
        config, measured_hash = deployment.generation, str(requested.get(RENDERED_KNOB))
        rendered, count = render_deployment(deployment, study), num_machines(deployment, study)
    if rendered.rendered_hash != measured_hash:
        raise ConfigError(
            f"trial {trial.trial_id}: was measured as rendered_hash={measured_hash} by version {trial.tool_version}, "
            f"this version ({__version__}) renders {rendered.rendered_hash}, which nobody has measured; use that "
            "version, or measure the config again with this one"
        )
    _check_no_secret(rendered)
    meta, cache, hashes = _left_behind(rendered, trial, engines_dir or Path(study.engines_dir))
    return Measured(
        study=study, trial=trial, rows=rows, config=config, rendered=rendered, deployment=deployment,
        num_machines=count, meta=meta, cache=cache, cache_sha256=hashes,
    )  # fmt: skip


def _check_no_secret(rendered: Rendered) -> None:
    """See that no value is shipped that its name calls a secret: a bundle is plain text, and must hold every value.

    Raises:
        ConfigError: If one is.
    """
    if named := [name for name in rendered.env if SECRET.search(name)]:
        raise ConfigError(
            f"engine.env.{named[0]}: is named like a secret, and a bundle holds it in plain text; leave it to the "
            "environment that the engine is started in, and measure again without it"
        )


def _checked_rows(trial: Trial, rows: Sequence[Row], *, is_random_allowed: bool) -> tuple[Row, ...]:
    name = f"trial {trial.trial_id} ({trial.study_id})"
    valid = usable(rows)
    if not any(row.trial_id == trial.trial_id for row in valid):
        raise ConfigError(f"{name}: has no valid row, so there is no measured number to ship; choose another trial")
    for row in rows:
        for key in SHARED:
            if getattr(row, key) != getattr(valid[0], key):
                raise ConfigError(
                    f"row {row.row_id}: {key}={getattr(row, key)}, and row {valid[0].row_id} has "
                    f"{getattr(valid[0], key)}: one number cannot rest on both; keep one, say tpw choose --where {key}="
                )
        for key in ("rendered_hash", "config_hash"):
            if getattr(row, key) != getattr(trial, key):
                raise ConfigError(
                    f"row {row.row_id}: {key}={getattr(row, key)}, and {name} has {getattr(trial, key)}; a bundle "
                    "takes rows of one config as it was started"
                )
        if row.evidence in {Evidence.MODELLED, Evidence.SIMULATED} or row.origin != "own":
            raise ConfigError(
                f"row {row.row_id}: evidence={row.evidence}, origin={row.origin}: nothing was started and measured; "
                "measure the config with tpw measure first"
            )
        if row.weights != "checkpoint" and not is_random_allowed:
            raise ConfigError(
                f"row {row.row_id}: weights={row.weights}: its number is no claim about the trained model; measure "
                "with weights=checkpoint, or say --allow-random-weights to ship it under that label"
            )
    return tuple(valid)


def _left_behind(
    rendered: Rendered, trial: Trial, engines_dir: Path
) -> tuple[dict[str, Any], dict[str, Path], dict[str, str]]:
    """What the engine folder holds: meta.json, the autotuner's cache after this start, and its hashes as noted then.

    An engine that keeps nothing there can be shipped without.

    Raises:
        ConfigError: If the engine keeps its cache there and the folder or the cache is missing, or has changed.
    """
    start = next(engines_dir.glob(f"*/starts/{trial.trial_id}"), None)
    if start is None:
        if keeps_cache(rendered):
            raise ConfigError(
                f"engines_dir={engines_dir}: holds no folder of trial {trial.trial_id}, whose autotuner's cache is "
                "part of what was measured; copy it from the machine that measured, or measure the config again"
            )
        return {}, {}, {}
    try:
        meta = json.loads((start.parents[1] / "meta.json").read_text(encoding="utf-8"))
        facts = json.loads((start / "start.json").read_text(encoding="utf-8"))
        hashes: dict[str, str] | None = facts.get("autotuner_cache_sha256")
        if hashes is None and keeps_cache(rendered):
            raise ConfigError(
                f"{start}: was left by an earlier version, which did not keep the autotuner's cache of each start; "
                "measure the config again"
            )
        hashes = hashes or {}
        files = cache_files(start)
        changed = [name for name in {**files, **hashes} if name not in files or sha256(files[name]) != hashes.get(name)]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{start}: cannot be read ({error}); restore it, or measure the config again") from error
    if changed:
        raise ConfigError(
            f"{start / changed[0]}: is not the cache that the start of trial {trial.trial_id} left; restore it, or "
            "measure the config again"
        )
    return meta, files, hashes
