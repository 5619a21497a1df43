"""The one schema: every stored column once, with its unit and meaning; the docs table derives from it."""

import dataclasses

from pipeline.columns import Record, column
from pipeline.vocabulary import Boundary, Evidence, Met, Reason, RowStatus, TrialStatus
from pipeline.workload import OperatingPoint

METHOD = 2
"""Version of the formulae from trace to row. 2 (2026-11): the interval is of a log-ratio over merged blocks, and the
verdict looks at more; rows.py says which columns of an earlier method still compare."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row(Record):
    """One operating point of one trial."""

    row_id: str = column("unique id of this row")
    trial_id: str = column("the trial (engine start) this row belongs to")
    study_id: str = column("the study the trial belongs to")
    case_id: str = column("identity of the comparable case, without software versions")
    config_hash: str = column("identity of the requested engine config, explicitly set keys only")
    rendered_hash: str = column("hash of the engine's files, argv and environment as rendered")
    effective_hash: str | None = column("hash of what the engine reports it resolved", default=None)
    config_json: str = column("the requested engine config, keyed by conf path")
    status: RowStatus = column("ok, or invalid (kept, never scored)")
    reasons: tuple[Reason, ...] = column("why the row is invalid", default=())
    warnings: tuple[Reason, ...] = column("what its reader should know", default=())
    evidence: Evidence = column("the weaker of the two below")
    throughput_evidence: Evidence = column("how the token counts came about")
    energy_evidence: Evidence = column("how the joules came about")
    origin: str = column("own, or imported from another tool", default="own")
    boundary: Boundary = column("what output_tokens_per_joule divides by: gpu_energy_j or cpu_energy_j")
    started_utc: str = column("window start, wall clock, ISO 8601")
    model: str = column("model name")
    weights: str = column("checkpoint, random, or none (modelled)")
    weights_init: str | None = column("how random weights were drawn; null for a checkpoint", default=None)
    hardware: str = column("hardware name as in conf/hardware")
    gpu_name: str | None = column("device name as its driver reports it", default=None)
    gpu_uuids: tuple[str, ...] = column("devices reserved by the deployment", default=())
    num_gpus: int = column("number of devices reserved; 0 on a CPU")
    engine: str = column("serving engine")
    engine_version: str | None = column("version the engine's own runtime reports", default=None)
    driver_version: str | None = column("device driver", default=None)
    tool_version: str = column("version of this package")
    workload: str = column("workload name")
    plan: str = column("measuring plan")
    isl_tokens: int = column("nominal input sequence length")
    osl_tokens: int = column("nominal output sequence length")
    isl_mean_tokens: float | None = column("mean input length of requests completed in the window", default=None)
    osl_mean_tokens: float | None = column("mean output length of requests completed in the window", default=None)
    concurrency: int | None = column("requests the client keeps in flight; null in an open loop", default=None)
    request_rate_per_s: float | None = column("requests sent per second (Poisson); null in a closed loop", default=None)
    warmup_s: float | None = column("time under this load before the window opened", default=None)
    warmup_unsettled: tuple[str, ...] = column("what had not settled when the warm-up hit its cap", default=())
    window_s: float | None = column("common window of tokens and joules", default=None)
    is_extended: bool | None = column("whether the window was doubled for a wide interval", default=None)
    output_tokens: int | None = column(
        "output tokens that arrived in the window, failed requests left out", default=None
    )
    input_tokens: int | None = column("prompt tokens of requests whose first token arrived in the window", default=None)
    num_completed: int | None = column("requests completed in the window", default=None)
    num_failed: int | None = column("requests that failed in the window", default=None)
    occupancy: float | None = column(
        "mean requests in flight / concurrency over the window; null in an open loop", default=None
    )
    num_running_mean: float | None = column("requests in the engine's running batch, after the window", default=None)
    num_waiting_mean: float | None = column("requests queued in the engine, after the window", default=None)
    kv_cache_use_mean: float | None = column("share of the KV cache in use, after the window", default=None)
    num_preemptions: int | None = column("requests the engine evicted and computed again", default=None)
    token_disagreement: float | None = column(
        "output tokens by the engine's counter / by the client over the same time - 1", default=None
    )
    gpu_energy_j: float | None = column("energy of all reserved GPU boards over the window", default=None)
    gpu_energy_integral_j: float | None = column("second reading: integral of instantaneous board power", default=None)
    cpu_energy_j: float | None = column("energy of the CPU packages, or of the declared CPU model", default=None)
    power_w: float | None = column("mean power within the boundary", default=None)
    output_tokens_per_joule: float | None = column(
        "the score: output tokens / joules within the boundary", default=None
    )
    total_tokens_per_joule: float | None = column("(input + output tokens) / joules within the boundary", default=None)
    output_tokens_per_s: float | None = column("output tokens / window", default=None)
    output_tokens_per_s_per_user: float | None = column("1 / median TPOT", default=None)
    output_tokens_per_joule_rel_ci95: float | None = column(
        "half-width of the 95 % interval / value, from blocks within the window (start-to-start not included)",
        default=None,
    )
    num_blocks: int | None = column("blocks that the interval rests on, after merging", default=None)
    block_autocorrelation: float | None = column("lag-1 autocorrelation of those blocks", default=None)
    drift: float | None = column("change of tokens/s over the window by a linear fit / its mean", default=None)
    power_drift: float | None = column("change of power over the window by a linear fit / its mean", default=None)
    ttft_p50_s: float | None = column("time to first token, median over requests", default=None)
    ttft_p99_s: float | None = column("time to first token, 99th percentile (nearest rank)", default=None)
    tpot_p50_s: float | None = column("(last token - first token) / (tokens - 1) per request, median", default=None)
    tpot_p99_s: float | None = column("the same, 99th percentile (nearest rank)", default=None)
    e2e_p50_s: float | None = column("request sent to last token, median", default=None)
    e2e_p99_s: float | None = column("request sent to last token, 99th percentile", default=None)
    itl_p50_s: float | None = column("time between stream events / tokens of the later one, median", default=None)
    itl_p99_s: float | None = column("the same, 99th percentile (nearest rank)", default=None)
    ttft_p99_low_s: float | None = column("95 % lower bound of the 99th percentile (order statistic)", default=None)
    ttft_p99_high_s: float | None = column("95 % upper bound; null with fewer than 299 requests", default=None)
    tpot_p99_low_s: float | None = column("95 % lower bound of the 99th percentile (order statistic)", default=None)
    tpot_p99_high_s: float | None = column("95 % upper bound; null with fewer than 299 requests", default=None)
    slo: str | None = column("SLO of the study when this was measured", default=None)
    slo_met: Met | None = column("yes or no where both bounds agree, else undecided", default=None)
    gpu_temperature_mean_c: float | None = column("mean GPU temperature over window and devices", default=None)
    memory_temperature_mean_c: float | None = column("mean memory temperature", default=None)
    memory_power_w: float | None = column("mean power of the memory, within power_w, sum over devices", default=None)
    memory_clock_mean_mhz: float | None = column("mean memory clock over window and devices", default=None)
    gpu_busy_mean: float | None = column("share of the time in which a kernel ran, mean over devices", default=None)
    sm_clock_mean_mhz: float | None = column("mean SM clock over window and devices", default=None)
    power_limit_w: float | None = column("enforced power limit, sum over devices", default=None)
    throttle_s: float | None = column("time held back for heat (version 1: or by a power brake)", default=None)
    brake_s: float | None = column("time held back by a power brake, longest device", default=None)
    power_cap_s: float | None = column("time held back by the power limit, longest device", default=None)
    client_cpu_s: float | None = column("CPU time of the load client over the window, all workers", default=None)
    client_core_share: float | None = column("of one core, the busiest worker of the client", default=None)
    client_lag_p99_s: float | None = column("how late the client's timers fired, 99th percentile", default=None)
    engine_cpu_s: float | None = column("CPU time of the engine's processes over the window", default=None)
    host_busy_share: float | None = column("share of all cores that worked", default=None)
    host_steal_share: float | None = column("share of all cores that another virtual machine took", default=None)
    num_new_kernels: int | None = column("files added to the engine's kernel caches in the window", default=None)
    num_compile_lines: int | None = column("log lines in the window that tell of a kernel compiled", default=None)
    host_id: str | None = column("this boot of this machine, hashed", default=None)
    method: int = column("version of the formulae from trace to row", default=1)
    trace_file: str | None = column("requests and power samples, path relative to the results folder", default=None)
    trace_sha256: str | None = column("hash of that file", default=None)
    calibration_id: str | None = column("constants of the model, for modelled rows", default=None)
    output_tokens_per_s_rel_error: float | None = column(
        "90th percentile of the error of these constants, on the model's own points if they are fitted to them, "
        "else on models that were left out of the fit; null where unknown",
        default=None,
    )
    power_w_rel_error: float | None = column("the same of power", default=None)
    output_tokens_per_joule_rel_error: float | None = column("the same of joules per token", default=None)
    engine_energy_j: float | None = column(
        "energy by the engine's own reading, from the last one before the window to the last one after it", default=None
    )
    engine_energy_disagreement: float | None = column(
        "the engine's energy / that of our meter over the same time - 1", default=None
    )
    finished_token_disagreement: float | None = column(
        "output tokens of finished requests by the engine's counter / by the client over the same time - 1",
        default=None,
    )
    engine_ttft_mean_s: float | None = column(
        "arrival in the engine to first token, mean over requests that finished between the readings", default=None
    )
    engine_queue_mean_s: float | None = column(
        "arrival in the engine to first scheduled, mean over the same requests", default=None
    )

    autotuner_cache: str | None = column(
        "warm if the engine found the kernel choices of an earlier start in its folder, cold if it found none; null "
        "where it keeps none there, and for rows from before this was recorded",
        default=None,
    )

    @property
    def load(self) -> float:
        """How heavy the load was, to order and space the rows of one config; 1 for a schedule, which is one load."""
        return OperatingPoint(concurrency=self.concurrency, request_rate_per_s=self.request_rate_per_s).load

    @property
    def load_text(self) -> str:
        """The same in a few letters, for tables."""
        if self.concurrency is not None:
            return str(self.concurrency)
        return f"{self.request_rate_per_s:g}/s" if self.request_rate_per_s is not None else "schedule"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Record):
    """One engine start; written last, so it is also the mark that its rows are complete."""

    trial_id: str = column("unique id of this trial")
    study_id: str = column("the study it belongs to")
    number: int = column("position in the study, from 0")
    status: TrialStatus = column("how it ended")
    reasons: tuple[str, ...] = column("what went wrong, in words", default=())
    config_hash: str = column("identity of the requested engine config")
    config_json: str = column("the requested engine config, keyed by conf path")
    proposed_by: str = column("baseline, recipe:NAME, prior, or the sampler")
    rendered_hash: str | None = column("hash of the engine's files, argv and environment", default=None)
    effective_hash: str | None = column("hash of what the engine reports it resolved", default=None)
    effective_json: str | None = column("what the engine reports it resolved", default=None)
    argv_json: str | None = column("the command line, placeholders unfilled", default=None)
    engine: str = column("serving engine")
    engine_version: str | None = column("version the engine's own runtime reports", default=None)
    evidence: Evidence | None = column("evidence of its rows; null without rows", default=None)
    num_rows: int = column("rows written")
    score: float | None = column(
        "output tokens/J at the best load that meets the SLO, by a smooth curve; null if none", default=None
    )
    slo: str = column("SLO that the score was taken under")
    score_bound: float | None = column(
        "upper bound of the score, in its unit: when the trial was cut, else after its first load; null where unknown",
        default=None,
    )
    score_bound_by: str | None = column(
        "what the bound rests on: physical, or the constants of the model by their calibration_id", default=None
    )
    started_utc: str = column("wall clock, ISO 8601")
    start_s: float | None = column("process start to first generated token", default=None)
    start_energy_j: float | None = column("energy within the boundary spent starting", default=None)
    total_s: float = column("whole trial, start to stop")
    log_tail: tuple[str, ...] = column("the engine's last log lines, kept when it failed", default=())
    tool_version: str = column("version of this package")
    study_json: str = column("the whole study as composed")
