"""What another tool reported as records: one trial and one row for each measurement."""

from typing import Any

from pipeline import __version__
from pipeline.engine_config import EngineConfig, content_hash
from pipeline.errors import ConfigError
from pipeline.importers.reported import MAX_DISAGREEMENT, Reported
from pipeline.record import Row, Trial
from pipeline.resume import study_json
from pipeline.rig.rows import identity
from pipeline.score import score
from pipeline.study import Study
from pipeline.vocabulary import Boundary, Evidence, Reason, RowStatus, TrialStatus, weaker
from pipeline.workload import OperatingPoint

IMPORTED = "imported"
"""`origin` of the rows, and who proposed their trials."""


def records(
    reported: Reported, study: Study, config: EngineConfig, number: int, concurrency: int | None
) -> tuple[Trial, Row]:
    """The trial and its one row; the same measurement makes the same ids.

    Args:
        reported: What the tool said.
        study: From `compose_study`.
        config: From `compose_study`.
        number: Position of the trial in its study.
        concurrency: Requests that were kept in flight, where the report does not say; None takes their mean.

    Raises:
        ConfigError: If neither is known.
    """
    point = _point(reported, concurrency)
    who = identity(study, config, point, trial_id_of(reported))
    num_gpus = reported.num_gpus or who["num_gpus"]
    energy = _energy(reported, study, num_gpus)
    reasons = _reasons(reported, study, num_gpus, energy["output_tokens_per_joule"])
    tpot_s, mean = reported.latencies_s.get("tpot_p50_s"), reported.num_in_flight
    row = Row(
        # Its own: with what else the tool set, which the report does not say, it is no case of ours.
        **who | {"case_id": content_hash([reported.tool, who["case_id"]]), "num_gpus": num_gpus},
        row_id=row_id_of(reported),
        rendered_hash=reported.digest[:16],  # nothing was rendered: the report stands for it
        status=RowStatus.INVALID if reasons else RowStatus.OK,
        reasons=reasons,
        warnings=(Reason.IMPORTED_WINDOW, Reason.INTERVAL_UNKNOWN),
        throughput_evidence=Evidence.MEASURED,
        origin=IMPORTED,
        source_tool=reported.tool,
        source_tool_version=reported.tool_version,
        boundary=reported.boundary,
        started_utc=reported.started.isoformat(timespec="milliseconds"),
        gpu_name=reported.gpu_name,
        engine_version=reported.engine_version,
        isl_mean_tokens=reported.isl_mean_tokens,
        osl_mean_tokens=reported.osl_mean_tokens,
        window_s=reported.duration_s,
        output_tokens=reported.output_tokens,
        input_tokens=reported.input_tokens,
        num_completed=reported.num_completed,
        num_failed=reported.num_failed,
        occupancy=mean / point.concurrency
        if mean and point.concurrency and (reported.concurrency or concurrency)
        else None,
        output_tokens_per_s=reported.output_tokens_per_s,
        output_tokens_per_s_per_user=1 / tpot_s if tpot_s else None,
        **energy,
        **reported.latencies_s,  # type: ignore[arg-type]  # all of them are columns of seconds
        slo=study.slo.name,
        weights_init=None if study.weights == "checkpoint" else "dummy weights of the engine's own",
    )
    trial = Trial(
        trial_id=row.trial_id,
        study_id=study.id,
        number=number,
        status=TrialStatus.OK,
        config_hash=row.config_hash,
        config_json=row.config_json,
        proposed_by=IMPORTED,
        engine=row.engine,
        engine_version=row.engine_version,
        evidence=row.evidence,
        num_rows=1,
        score=score([row], study.slo),
        slo=study.slo.name,
        started_utc=row.started_utc,
        total_s=reported.duration_s or 0.0,
        tool_version=__version__,
        study_json=study_json(study),
    )
    return trial, row


def row_id_of(reported: Reported) -> str:
    """Id of the row that a measurement becomes."""
    return reported.digest[:12]


def trial_id_of(reported: Reported) -> str:
    """Id of the trial of that row."""
    return reported.digest[12:24]


def _point(reported: Reported, concurrency: int | None) -> OperatingPoint:
    """The load: the report's, the user's, else the mean number in flight.

    Raises:
        ConfigError: If none is known.
    """
    if reported.request_rate_per_s is not None:
        return OperatingPoint(request_rate_per_s=reported.request_rate_per_s)
    users = reported.concurrency or concurrency
    if users is None and reported.num_in_flight is None:
        raise ConfigError(f"{reported.where}: does not say how many requests were in flight; say concurrency=N")
    return OperatingPoint(concurrency=users or max(1, round(reported.num_in_flight or 0)))


def _energy(reported: Reported, study: Study, num_gpus: int) -> dict[str, Any]:
    """Columns of joules and watts, and how they came about."""
    kw = study.hardware.provisioned_kw_per_gpu
    facility_w = num_gpus * kw * 1e3 if kw else None
    energy_j, power_w = reported.gpu_energy_j, reported.power_w
    if reported.boundary is Boundary.FACILITY:
        energy_j, power_w = None, facility_w
    elif power_w is None and energy_j and reported.duration_s:
        power_w = energy_j / reported.duration_s
    output_per_s, input_per_s = reported.output_tokens_per_s, reported.input_tokens_per_s
    is_scaled = reported.is_one_nodes_energy and num_gpus > (
        study.hardware.num_gpus_per_node or study.hardware.num_gpus
    )
    evidence = Evidence.MODELLED if reported.boundary is Boundary.FACILITY else Evidence.MEASURED
    evidence = Evidence.ESTIMATED if is_scaled else evidence
    return {
        "evidence": weaker(Evidence.MEASURED, evidence),
        "energy_evidence": evidence,
        "gpu_energy_j": energy_j,
        "power_w": power_w,
        "facility_power_w": facility_w,
        "output_tokens_per_joule": output_per_s / power_w if power_w and output_per_s else None,
        "total_tokens_per_joule": (output_per_s + input_per_s) / power_w
        if power_w and input_per_s is not None
        else None,
    }


def _reasons(reported: Reported, study: Study, num_gpus: int, per_joule: float | None) -> tuple[Reason, ...]:
    """Why the row is invalid."""
    metered, failed, done = reported.num_gpus_metered, reported.num_failed, reported.num_completed
    said, has_tokens = reported.output_tokens_per_joule, reported.output_tokens_per_s > 0
    has_energy = bool(reported.gpu_energy_j or reported.power_w)
    holds = {
        Reason.NO_TOKENS: not has_tokens,
        Reason.NO_ENERGY: per_joule is None and (has_tokens or not has_energy),
        Reason.READING_DISAGREEMENT: bool(per_joule and said and abs(said / per_joule - 1) > MAX_DISAGREEMENT),
        Reason.GPU_COUNT_MISMATCH: has_energy and metered is not None and metered != num_gpus,
        Reason.ERROR_RATE: bool(failed and failed > study.plan.max_error_rate * (failed + (done or 0))),
        Reason.DUMMY_WEIGHTS: study.weights == "random",
    }
    return tuple(sorted(reason for reason, is_so in holds.items() if is_so))
