"""What all rows of one study share, and the name that a study gets from it."""

import dataclasses

from pipeline.engine_config import content_hash
from pipeline.study import Study

VERIFY = "verify-"
"""Begins the name of a study that `tpw verify --live` makes of its one row."""


def held(study: Study) -> dict[str, object]:
    """What all rows of one study share, by conf path; the rest may change from one run to the next."""
    hardware, workload, plan = study.hardware, dataclasses.asdict(study.workload), dataclasses.asdict(study.plan)
    # Only where set: what came later must not rename older studies.
    later = {
        "engine.image": study.engine.image,
        "engine.instrumented": study.engine.instrumented,
        "calibration": study.calibration if study.rig == "modelled" else None,
        "hardware.power_cap_w": hardware.power_cap_w,
        "hardware.sm_clock_share": hardware.sm_clock_share if hardware.sm_clock_share != 1 else None,
    }
    return {
        "model.name": study.model.name,
        "model.path": study.model.path,
        "weights": study.weights,
        "weights_seed": study.weights_seed,
        "hardware.name": hardware.name,
        "hardware.num_gpus": hardware.num_gpus,
        "hardware.declared_idle_w": hardware.declared_idle_w,
        "hardware.declared_busy_w_per_core": hardware.declared_busy_w_per_core,
        "engine.name": study.engine.name,
        "engine.env": study.engine.env,
        "rig": study.rig,
        "meter": study.meter,
        **{f"workload.{name}": value for name, value in workload.items() if name != "source"},
        # How often something is repeated changes no row.
        **{f"plan.{name}": value for name, value in plan.items() if name not in {"windows", "starts"}},
        **{name: value for name, value in later.items() if value},
    }


def study_id(study: Study) -> str:
    """Name a study after what it holds fixed, so that the same command finds its rows again."""
    name = "_".join([study.model.name, study.hardware.name, study.engine.name, study.workload.name, study.plan.name])
    return f"{name}{'_modelled' if study.rig == 'modelled' else ''}-{content_hash(held(study))[:6]}"
