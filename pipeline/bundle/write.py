"""Write a bundle: the measured bytes, the ways to launch them, the decision, hashes of all of it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.bundle import compose_file, dynamo, kubernetes
from pipeline.bundle.headline import Headline, headline
from pipeline.bundle.launch import RUN, Container, container, own_files, run_script
from pipeline.bundle.measured import Measured, measured
from pipeline.bundle.readme import readme
from pipeline.disaggregation import Deployment
from pipeline.engine.autotuner_cache import keeps_cache
from pipeline.engine.folder import SCRIPT, as_json, write_whole
from pipeline.errors import ConfigError
from pipeline.quality.record import QualityResult
from pipeline.quality.record import as_json as quality_as_json
from pipeline.record import Row, Trial
from pipeline.resume import study_json
from pipeline.study import Study
from pipeline.workload import Slo

SCHEMA_VERSION = 1
"""Of `bundle` in decision.json."""

DECISION, RENDERED, README, HASHES = "decision.json", "rendered.json", "README.md", "SHA256SUMS"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

STATE = "state"
"""What run.sh makes; no part of the bundle."""


def write_bundle(  # noqa: PLR0913  # what was measured, decided and checked
    folder: Path,
    *,
    study: Study,
    trial: Trial,
    rows: Sequence[Row],
    decision: Mapping[str, Any],
    quality: QualityResult | None = None,
    number: Headline | None = None,
    slo: Slo | None = None,
    engines_dir: Path | None = None,
    deployment: Deployment | None = None,
    allow_random_weights: bool = False,
) -> Path:
    """Write engines/production/<name>/.

    A bundle of the same trial is written anew; anything else that lies there is left alone, and refused.

    Args:
        folder: The bundle; its last part is its name.
        study: As stored with the trial (`resume.study_of`); of a split deployment, the one that it was rendered under.
        trial: The measured start.
        rows: Its rows, and those of other starts of the same config.
        decision: The chooser's, stored as it is but for the key `bundle`; `schema_version` must be in it.
        quality: Its quality check, if one was made.
        number: What the bundle promises; None: that of the best load that meets the SLO.
        slo: SLO of the decision; None: the study's.
        engines_dir: Where the engine folder of the start is kept; None: the study's.
        deployment: The split deployment that the rows name, if it is one.
        allow_random_weights: Whether random weights may be shipped, under that label.

    Returns:
        The folder.

    Raises:
        ConfigError: If it must not be written; the message names the fix.
    """
    if "schema_version" not in decision:
        raise ConfigError("decision: has no schema_version; pass what the chooser wrote")
    found = measured(
        study, trial, rows, engines_dir=engines_dir, deployment=deployment, allow_random_weights=allow_random_weights
    )
    _check_quality(quality, found)
    _check_free(folder, trial)
    box, slo = container(found), slo or study.slo
    facts = _facts(folder, found, number or headline(found.rows, slo), slo, quality, box)
    files, left_out = _files(folder.name, found, box)
    own = own_files(found)
    facts["files"] = sorted([*files, *own, *found.cache, DECISION, README])
    whole = dict(decision) | {"bundle": facts}
    files |= {DECISION: as_json(whole), README: readme(whole, left_out)}
    contents = {name: text.encode() for name, text in files.items()}
    contents |= {name: path.read_bytes() for name, path in {**own, **found.cache}.items()}
    _write(folder, contents)
    return folder


def sums(contents: Mapping[str, bytes]) -> str:
    """SHA256SUMS of files, as `sha256sum -c` reads it."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(contents.items()))


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    try:
        for path in [each for each in folder.rglob("*") if each.is_file()]:  # of an earlier bundle of this trial
            if path.relative_to(folder).parts[0] != STATE and str(path.relative_to(folder)) not in contents:
                path.unlink()
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / RUN).chmod(0o755)
        write_whole(folder / HASHES, sums(contents))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error


def _files(name: str, found: Measured, box: Container) -> tuple[dict[str, str], dict[str, str]]:
    """Texts by name, and which files are left out and why."""
    rendered = found.rendered
    files = {path: text for path, text in rendered.files.items() if path != SCRIPT}
    files[RENDERED] = as_json({"files": rendered.files, "argv": rendered.argv, "env": rendered.env})
    files[RUN] = run_script(found, (
        f"{found.study.engine.name} {found.trial.engine_version or ''}: command line and environment as measured.",
        f"rendered_hash {found.rendered_hash}, trial {found.trial.trial_id} of study {found.trial.study_id}.",
    ))  # fmt: skip
    left_out: dict[str, str] = {}
    if (why := _why_no_container(found)) is not None:
        left_out = {"compose.yaml": why, "kubernetes.yaml": why}
    else:
        files["compose.yaml"] = _labelled(compose_file.compose_file(name, box), compose_file.SOURCE)
        shipped = {path: text for path, text in files.items() if path not in {RENDERED, "compose.yaml"}}
        places = {**own_files(found), **found.cache}
        shipped |= {path: place.read_text(encoding="utf-8", errors="replace") for path, place in places.items()}
        if any("\N{REPLACEMENT CHARACTER}" in shipped[path] for path in found.cache):
            left_out["kubernetes.yaml"] = "the autotuner's cache is no text, which a ConfigMap takes"
        elif kubernetes.fits(shipped):
            files["kubernetes.yaml"] = _labelled(
                kubernetes.kubernetes(name, box, shipped), "Kubernetes API, v1 and apps/v1"
            )
        else:
            left_out["kubernetes.yaml"] = "the autotuner's cache is larger than a ConfigMap takes"
    if found.deployment is not None:
        text = dynamo.dynamo(name, found, found.deployment)
        files["dynamo.yaml"] = _labelled(text, "NVIDIA Dynamo's CRD nvidia.com/v1alpha1")
    return files, left_out


def _why_no_container(found: Measured) -> str | None:
    """Why one container is no place for it, or None."""
    if found.num_machines > 1:
        return f"it spans {found.num_machines} machines, which run.sh starts through Slurm"
    host = found.study.engine.host
    if found.deployment is not None and host in LOOPBACK:
        return f"its orchestrator listens on {host}, as measured (engine.host), where no one outside reaches it"
    return None


def _labelled(text: str, source: str) -> str:
    return f"# Rendered and checked against the documented structure ({source}); NOT RUN.\n{text}"


def _facts(
    folder: Path, found: Measured, number: Headline, slo: Slo, quality: QualityResult | None, box: Container
) -> dict[str, Any]:
    """`bundle` of decision.json."""
    study, trial = found.study, found.trial
    first = next(row for row in found.rows if row.row_id in number.row_ids)
    checkpoint = study.model.checkpoints.get(found.config.precision.weights)
    kept = found.meta.get("model", {})
    return {
        "schema_version": SCHEMA_VERSION,
        "name": folder.name,
        "folder": str(folder),
        "written_by": __version__,
        "rendered_hash": found.rendered_hash,
        "config_hash": trial.config_hash,
        "effective_hash": trial.effective_hash,
        "config": json.loads(trial.config_json) if found.deployment is None else found.deployment.requested(),
        "measured_start": {
            "trial_id": trial.trial_id, "study_id": trial.study_id, "started_utc": trial.started_utc,
            "start_s": trial.start_s, "start_energy_j": trial.start_energy_j, "tool_version": trial.tool_version,
            "autotuner_cache": found.autotuner_cache,
        },
        "keeps_cache": keeps_cache(found.rendered) or found.deployment is not None,
        "autotuner_cache": [{"file": name, "sha256": found.cache_sha256[name]} for name in found.cache],
        "headline": dataclasses.asdict(number) | {"load": str(number.point)},
        "rows": [row.to_dict() for row in found.rows],
        "evidence": first.evidence,
        "boundary": first.boundary,
        "weights": first.weights,
        "weights_init": first.weights_init,
        "plan": first.plan,
        "slo": dataclasses.asdict(slo),
        "workload": dataclasses.asdict(study.workload),
        "versions": {
            "engine": study.engine.name, "engine_version": trial.engine_version, "driver_version": first.driver_version,
            "tool_version": trial.tool_version, "image": found.meta.get("image") or study.engine.image,
        },
        "image": box.image,
        "is_measured_image": box.is_measured_image,
        "gpu_name": first.gpu_name,
        "gpu_uuids": list(first.gpu_uuids),
        "num_gpus": found.num_gpus,
        "num_machines": found.num_machines,
        "power": study.power,
        "power_limit_w": first.power_limit_w,
        "model": {
            "name": study.model.name,
            "repo": checkpoint.repo if checkpoint else None,
            "revision": kept.get("revision") or (checkpoint.revision if checkpoint else None),
            "checkpoint_hash": kept.get("checkpoint_hash"),
        },
        "quality": None if quality is None else quality_as_json(quality),
        "quality_verdict": None if quality is None else quality.verdict,
        "study": json.loads(study_json(study)),
    }  # fmt: skip


def _check_quality(quality: QualityResult | None, found: Measured) -> None:
    if quality is None:
        return
    checked, trial = quality.findings[0], found.trial
    own = {
        "candidate_rendered_hash": found.rendered_hash, "candidate_engine": f"{trial.engine} {trial.engine_version}",
        "model": found.study.model.name, "weights": found.study.weights,
    }  # fmt: skip
    for key, value in own.items():
        if (was := getattr(checked, key)) != value:
            raise ConfigError(
                f"quality={quality.quality_id}: was made of {key.removeprefix('candidate_')}={was}, this is {value}; "
                f"check this one by tpw quality candidate={trial.trial_id}"
            )


def _check_free(folder: Path, trial: Trial) -> None:
    """Make sure that nothing lies there but an earlier bundle of the same trial.

    Raises:
        ConfigError: If something else does.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        there = json.loads((folder / DECISION).read_text(encoding="utf-8"))["bundle"]["measured_start"]["trial_id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder}: exists and is no bundle; choose another name, or move it away") from None
    if there != trial.trial_id:
        raise ConfigError(f"{folder}: is the bundle of trial {there}; choose another name, or move it away")
