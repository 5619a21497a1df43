"""What an engine folder says of its engine and of each start: enough to know whether another start is the same."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.engine.fingerprint import checkpoint_fingerprint, snapshot_revision
from pipeline.engine.protocol import Rendered
from pipeline.engine_config import EngineConfig
from pipeline.meter.protocol import Meter, MeterInfo
from pipeline.precision import formats
from pipeline.rig.protocol import Start
from pipeline.study import Study


def definition(
    study: Study,
    config: EngineConfig,
    rendered: Rendered,
    image: str | None,
    info: MeterInfo,
    places: Mapping[str, str],
) -> dict[str, Any]:
    """meta.json of an engine folder: model and checkpoint, versions, container, kind of GPU.

    Raises:
        OSError: If the checkpoint cannot be read.
    """
    checkpoint = study.model.checkpoints.get(config.precision.weights)
    model = Path(places["model"]) if "model" in places else None
    is_checkpoint = study.weights == "checkpoint" and model is not None
    found = formats(config, study.model, study.hardware)
    return {
        "rendered_hash": rendered.rendered_hash,
        "config_hash": config.config_hash,
        "config": config.requested(),
        "engine": config.engine,
        "engine_version": study.engine.version,
        "runtime": study.engine.runtime,
        "image": image,
        "model": {
            "name": study.model.name,
            "repo": checkpoint.repo if checkpoint else None,
            "revision": (snapshot_revision(model) if is_checkpoint and model else None)
            or (checkpoint.revision if checkpoint else None),
            "checkpoint_hash": checkpoint_fingerprint(model) if is_checkpoint and model and model.is_dir() else None,
            "formats": str(found) if found else None,
        },
        "weights": study.weights,
        "weights_init": rendered.weights_init,
        "gpu_name": info.device_name,
        "num_gpus": config.parallelism.num_gpus if study.hardware.kind == "gpu" else 0,
        "power": study.power,
        "tool_version": __version__,
    }


def start_facts(study: Study, trial_id: str, meter: Meter, start: Start, failure: str | None = None) -> dict[str, Any]:
    """start.json of one start, but for the rows measured on it."""
    info = meter.info
    states = [reading.states[-1] for reading in meter.reading().values() if reading.states]
    return {
        "trial_id": trial_id,
        "study_id": study.id,
        "ended_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu_uuids": list(info.devices) if study.hardware.kind == "gpu" else [],
        "driver_version": info.driver_version,
        "power_limits_w": [state.power_limit_w for state in states],
        "sm_clocks_mhz": [state.sm_clock_mhz for state in states],
        "autotuner_cache": start.autotuner_cache,
        "failure": failure,
        "start_s": start.start_s,
        "start_energy_j": start.start_energy_j,
        "effective": start.effective,
        "effective_hash": start.effective_hash,
    }
