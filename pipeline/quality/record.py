"""What a quality check found: one record for each thing that was compared, all of one check in one file.

results/quality/quality-<quality_id>.parquet      never changed, never overwritten
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import Record, column
from pipeline.errors import StoreError
from pipeline.store import write_atomically


class Verdict(StrEnum):
    """Whether a bound holds: yes or no where the whole interval agrees, else undecided."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """One metric of one comparison of a candidate with a reference."""

    quality_id: str = column("unique id of the check; its findings share it")
    started_utc: str = column("wall clock, ISO 8601")
    tool_version: str = column("version of this package")
    check: str = column("data_free: greedy answers to fixed prompts; lm_eval: a task of lm-evaluation-harness")
    metric: str = column("what was compared; for a task its name and metric")
    value: float | None = column("estimate; null where it could not be computed", default=None)
    low: float | None = column("95 % bound below", default=None)
    high: float | None = column("95 % bound above", default=None)
    threshold: float | None = column("bound that it is judged by; null where it only informs", default=None)
    verdict: Verdict | None = column("by the interval; null where it only informs", default=None)
    reference_value: float | None = column("the reference's own score; null where there is none", default=None)
    candidate_value: float | None = column("the candidate's own score", default=None)
    num_prompts: int | None = column("prompts, or samples of a task, compared", default=None)
    num_tokens: int | None = column("output tokens compared", default=None)
    notes: tuple[str, ...] = column("what its reader should know", default=())
    candidate: str = column("what was compared, as named by the user")
    candidate_rendered_hash: str | None = column("of a config that was started here; null for a url", default=None)
    candidate_config_json: str | None = column("its requested config", default=None)
    candidate_engine: str | None = column("its engine and version", default=None)
    reference: str = column("with what, as named by the user")
    reference_rendered_hash: str | None = column("the same of the reference", default=None)
    reference_config_json: str | None = column("the same of the reference", default=None)
    reference_engine: str | None = column("the same of the reference", default=None)
    model: str | None = column("model name", default=None)
    weights: str | None = column("checkpoint or random; null for servers that do not say", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityResult:
    """One check."""

    findings: tuple[Finding, ...]

    @property
    def quality_id(self) -> str:
        """Its id."""
        return self.findings[0].quality_id

    @property
    def verdict(self) -> Verdict:
        """Fail if a finding fails, undecided if none does and one is undecided or none was judged, else pass."""
        found = {finding.verdict for finding in self.findings} - {None}
        return next(
            (verdict for verdict in (Verdict.FAIL, Verdict.UNDECIDED) if verdict in found),
            Verdict.PASS if found else Verdict.UNDECIDED,
        )


def append_result(results_dir: Path, result: QualityResult) -> Path:
    """Write a check to a file of its own.

    Raises:
        StoreError: If it cannot be written.
    """
    path = results_dir / "quality" / f"quality-{result.quality_id}.parquet"
    table = pa.Table.from_pylist([finding.to_dict() for finding in result.findings], schema=Finding.schema())
    write_atomically(table, path)
    return path


def read_results(results_dir: Path) -> list[QualityResult]:
    """Every check, in order of time.

    Raises:
        StoreError: If a file cannot be read; the message names it.
    """
    results = []
    for path in sorted((results_dir / "quality").glob("quality-*.parquet")):
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                findings = tuple(Finding.from_dict(values) for values in file.read().to_pylist())
        except (OSError, ValueError, StoreError, pa.ArrowException) as error:
            why = " ".join(str(error).split())
            raise StoreError(f"{path}: holds no quality check ({why}); restore or move it away") from error
        results.append(QualityResult(findings=findings))
    return sorted(results, key=lambda result: result.findings[0].started_utc)


def latest_for(results: Sequence[QualityResult], rendered_hash: str) -> QualityResult | None:
    """The last check whose candidate was started from these very bytes; None if there is none."""
    ours = [each for each in results if each.findings[0].candidate_rendered_hash == rendered_hash]
    return ours[-1] if ours else None


def judged(
    low: float | None, high: float | None, *, at_least: float | None = None, at_most: float | None = None
) -> Verdict:
    """Whether an interval lies on the right side of a bound; unknown bounds decide nothing."""
    if low is None or high is None:
        return Verdict.UNDECIDED
    if at_least is not None:
        return Verdict.PASS if low >= at_least else Verdict.FAIL if high < at_least else Verdict.UNDECIDED
    assert at_most is not None  # noqa: S101  # one of the two is given
    return Verdict.PASS if high <= at_most else Verdict.FAIL if low > at_most else Verdict.UNDECIDED


def as_json(result: QualityResult) -> list[dict[str, object]]:
    """Plain values, for other files."""
    return [finding.to_dict() for finding in result.findings]
