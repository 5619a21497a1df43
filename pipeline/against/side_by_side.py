"""Our rows beside published points of the same model, GPU, precision and lengths, at the same tokens/s per user.

A published series is one configuration over its loads. Between two neighbours on its Pareto front (points that no other
of the series beats in both tokens/J and tokens/s per user) figures are interpolated, logarithms over logarithms; beyond
its ends nothing is said. Whatever else the publisher did not say (driver, power limit, KV cache, prompts) may differ.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from pipeline.against.public import INTERACTIVITY, Public
from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.importers.model_name import choices
from pipeline.record import Row
from pipeline.vocabulary import Boundary, Evidence, RowStatus

PRECISION = "precision.weights"

FIGURES = ("output_tokens_per_joule", "output_tokens_per_s_per_gpu", "power_w_per_gpu")
"""What is compared, in this order."""

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How near a case has to be.

    Attributes:
        boundary: Of the joules: GPU boards as measured, or the facility as provisioned, by one table for both sides.
        tolerance: By how much the nominal lengths may differ: 0.25 is a quarter more, or as much less.
        allow_random_weights: Place rows of random weights, with that label.
    """

    boundary: Boundary = Boundary.GPU
    tolerance: float = 0.25
    allow_random_weights: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Rows of one case of ours beside one published series.

    Attributes:
        rows: Ours: windows of one configuration at one load.
        tokens_per_s_per_user: At which both are compared.
        ours: Geometric means of our figures.
        theirs: The published ones there.
        neighbours: The published points that they come from: one, or two.
        boundary: Of the joules, on both sides.
    """

    rows: tuple[Row, ...]
    tokens_per_s_per_user: float
    ours: Figures
    theirs: Figures
    neighbours: tuple[Row, ...]
    boundary: Boundary

    @property
    def ratios(self) -> Figures:
        """Ours / theirs."""
        return {name: self.ours[name] / self.theirs[name] for name in FIGURES}


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of ours that stands beside nothing, and why."""

    row: Row
    reason: str


def side_by_side(rows: Sequence[Row], public: Public, asked: Asked) -> tuple[list[Placed], list[Refused]]:
    """Place every row that a published series has a counterpart of; every other has its reason.

    Args:
        rows: Ours.
        public: Theirs.
        asked: How near a case has to be.
    """
    placed: list[Placed] = []
    refused: list[Refused] = []
    fitting = []
    for row in rows:
        reason = _why_not_ours(row, INTERACTIVITY[public.tool], asked)
        if reason is None:
            fitting.append(row)
        else:
            refused.append(Refused(row, reason))
    for group in grouped(fitting, lambda row: (row.study_id, row.case_id, row.engine_version)).values():
        candidates, reason = _candidates(group[0], public, asked)
        found = [] if reason else _beside(group, candidates, INTERACTIVITY[public.tool], asked.boundary)
        placed += [each for each in found if isinstance(each, Placed)]
        if not any(isinstance(each, Placed) for each in found):
            reason = reason or "; ".join(each for each in found if isinstance(each, str))
            refused += [Refused(row, reason) for row in group]
    return placed, refused


def _why_not_ours(row: Row, latency: str, asked: Asked) -> str | None:
    """Why a row of ours is compared with nothing, whatever was published."""
    tokens, joules = row.throughput_evidence, row.energy_evidence
    is_metered = row.boundary is Boundary.GPU and joules is Evidence.MEASURED
    holds = {
        f"{row.status} ({', '.join(row.reasons)})": row.status is not RowStatus.OK,
        f"origin={row.origin}: it is no row of ours": row.origin != "own",
        "it is of no GPU": not row.num_gpus,
        f"its tokens are {tokens}, theirs are measured": tokens is not Evidence.MEASURED,
        f"its joules are {joules} of boundary={row.boundary}, theirs are measured at GPU boards": (
            asked.boundary is Boundary.GPU and not is_metered
        ),
        "weights=random, theirs are trained: --allow-random-weights places it with that label": (
            row.weights == "random" and not asked.allow_random_weights
        ),
        f"its {latency} is not known, by which users are alike": not getattr(row, latency),
        "it has no tokens/s": not row.output_tokens_per_s,
        f"{row.hardware} has no provisioned kW in conf/hardware": (
            asked.boundary is Boundary.FACILITY and _facility_w(row) is None
        ),
    }  # fmt: skip
    return next((reason for reason, is_so in holds.items() if is_so), None)


def _candidates(row: Row, public: Public, asked: Asked) -> tuple[list[Row], str | None]:
    """The published points of a row's case; where there are none, by which condition the last of them fell."""
    if present_name(row.model) not in public.models:
        return [], f"no public point of model={present_name(row.model)}; there are: {', '.join(sorted(public.models))}"
    left = list(public.rows)
    for name, value_of, fits in _conditions(asked):
        kept = [each for each in left if fits(value_of(row), value_of(each))]
        if not kept:
            there = sorted({str(value_of(each)) for each in left})
            nearly = f" within {100 * asked.tolerance:.0f} %" if fits is not _same else ""
            return [], f"no public point of {name}={value_of(row)}{nearly}; there are: {', '.join(there) or 'none'}"
        left = kept
    return left, None


def _conditions(asked: Asked) -> list[tuple[str, Callable[[Row], object], Callable[[object, object], bool]]]:
    """What ours and theirs share: its name, its value of a row, and whether two values are alike."""

    def near(ours: object, theirs: object) -> bool:
        ratio = float(str(ours)) / float(str(theirs))
        return max(ratio, 1 / ratio) <= 1 + asked.tolerance

    conditions: list[tuple[str, Callable[[Row], object], Callable[[object, object], bool]]] = [
        ("model", lambda row: present_name(row.model), _same),
        ("hardware", lambda row: row.hardware, _same),
        (PRECISION, precision, _same),
        ("isl_tokens", lambda row: row.isl_tokens, near),
        ("osl_tokens", lambda row: row.osl_tokens, near),
    ]
    if asked.boundary is Boundary.GPU:
        conditions.append(("boundary", lambda row: row.boundary, _same))
    return conditions


def _same(ours: object, theirs: object) -> bool:
    return ours == theirs


def precision(row: Row) -> object:
    """Format of a row's weights."""
    return json.loads(row.config_json).get(PRECISION)


def _beside(ours: Sequence[Row], public: Sequence[Row], latency: str, boundary: Boundary) -> list[Placed | str]:
    """Our rows of one case beside each published series, or why not."""
    users = 1 / _mean([getattr(row, latency) for row in ours])
    means = {name: _mean([_figures(row, boundary)[name] for row in ours]) for name in FIGURES}
    found: list[Placed | str] = []
    for name, series in grouped([row for row in public if getattr(row, latency)], series_text).items():
        front = _front(series, latency, boundary)
        low, high = 1 / getattr(front[0], latency), 1 / getattr(front[-1], latency)
        between = _neighbours(front, latency, users)
        if between is None:
            found.append(f"{users:.3g} tok/s per user is beyond the public {low:.3g} to {high:.3g} of {name}")
            continue
        theirs = _interpolated(between, latency, users, boundary)
        found.append(
            Placed(rows=tuple(ours), tokens_per_s_per_user=users, ours=means, theirs=theirs,
                   neighbours=tuple(dict.fromkeys(between)), boundary=boundary)
        )  # fmt: skip
    return found or [f"no public point says its {latency}"]


def series_text(row: Row) -> str:
    """What a published point shares with the others of its series: all but load and batch."""
    config = {key: value for key, value in json.loads(row.config_json).items() if not key.startswith("batching.")}
    settings = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in config.items() if key != PRECISION)
    version = f" {row.engine_version}" if row.engine_version else ""
    return f"{row.num_gpus} x {row.hardware}, {row.engine}{version}, {settings}, {row.workload}"


def _front(series: Sequence[Row], latency: str, boundary: Boundary) -> list[Row]:
    """The points that no other of the series beats in both tokens/J and tokens/s per user, the slowest users first."""
    front: list[Row] = []
    per_joule = FIGURES[0]
    for row in sorted(series, key=lambda row: (getattr(row, latency), -_figures(row, boundary)[per_joule])):
        if not front or _figures(row, boundary)[per_joule] > _figures(front[0], boundary)[per_joule]:
            front.insert(0, row)
    return front


def _neighbours(front: Sequence[Row], latency: str, users: float) -> tuple[Row, Row] | None:
    """The two points that users lie between; one of them twice where it is as fast; None beyond the ends."""
    exact = next((row for row in front if math.isclose(1 / getattr(row, latency), users, rel_tol=1e-9)), None)
    if exact is not None:
        return exact, exact
    pairs = pairwise(front)
    return next((pair for pair in pairs if 1 / getattr(pair[0], latency) < users < 1 / getattr(pair[1], latency)), None)


def _interpolated(between: tuple[Row, Row], latency: str, users: float, boundary: Boundary) -> Figures:
    """Figures at so many tokens/s per user, by straight lines between logarithms."""
    slow, fast = between
    first, last = (-math.log(getattr(row, latency)) for row in between)
    share = (math.log(users) - first) / (last - first) if slow is not fast else 0.0
    at_slow, at_fast = _figures(slow, boundary), _figures(fast, boundary)
    return {name: math.exp((1 - share) * math.log(at_slow[name]) + share * math.log(at_fast[name])) for name in FIGURES}


def _figures(row: Row, boundary: Boundary) -> Figures:
    """What is compared, of a row that has it."""
    tokens_per_s = row.output_tokens_per_s or 0.0
    power_w = (_facility_w(row) if boundary is Boundary.FACILITY else row.power_w) or math.nan
    values = (tokens_per_s / power_w, tokens_per_s / row.num_gpus, power_w / row.num_gpus)
    return dict(zip(FIGURES, values, strict=True))


def _facility_w(row: Row) -> float | None:
    """All-in utility power as provisioned for its GPUs, by conf/hardware."""
    kw = choices("hardware")[row.hardware].get("provisioned_kw_per_gpu")
    return None if kw is None else row.num_gpus * float(kw) * 1e3


def _mean(values: Sequence[float]) -> float:
    """Geometric mean."""
    return math.exp(fmean(math.log(value) for value in values))
