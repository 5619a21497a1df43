"""From rows to a decision: the config with the most tokens per joule under an SLO, at its best load or for a demand."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline import __version__
from pipeline.choose.alternatives import front, throughput_pick
from pipeline.choose.candidate import Candidate, Point, candidates
from pipeline.choose.conditions import Pool
from pipeline.choose.decision import Choice, Comparison, Decision, basis
from pipeline.choose.demand import Demand
from pipeline.choose.explain import explain
from pipeline.choose.finals_command import finals_command
from pipeline.choose.fleet import Fleet, Idle, Prices, fleet
from pipeline.choose.limit import limit, nearest
from pipeline.choose.ranking import Contender, Ranking, rank
from pipeline.config_text import label
from pipeline.errors import ConfigError, PipelineError
from pipeline.multiple_comparison import half_width
from pipeline.neighbours import cross_row_warnings
from pipeline.percentile import slo_met
from pipeline.resume import study_of
from pipeline.search.finalists import MIN_ROUNDS
from pipeline.vocabulary import Evidence, Met
from pipeline.workload import Slo

LATENCIES = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "e2e_p50_s", "e2e_p99_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of the config to choose, beside the SLO; a demand of None asks for the best load alone."""

    demand: Demand | None = None
    idle: Idle | None = None
    prices: Prices = dataclasses.field(default_factory=Prices)
    provisioned_kw_per_device: float | None = None
    max_devices: int | None = None


def decide(pool: Pool, slo: Slo, asked: Asked) -> Decision:
    """Choose a config.

    Raises:
        ConfigError: If none meets the SLO, or the demand is beyond what was measured.
    """
    found, ruled_out = candidates(pool)
    fit = [(each, best) for each in found if (best := each.best(slo)) is not None]
    if not fit:
        raise ConfigError(nearest(found, ruled_out, slo))
    ranking = rank(_within([_contender(each, best, asked) for each, best in fit], asked))
    winner, why = ranking.take()
    say = _Sayer(found, ranking, slo, cross_row_warnings(pool.rows))
    others = [each for each in ranking.ranked if each is not winner]
    doubts = _doubts(pool, ranking, winner, slo, say)
    command = None
    if not ranking.is_firm and _can_start(pool) and (not ranking.is_alone or winner.best.num_starts < MIN_ROUNDS):
        try:
            command = _command(pool, ranking, winner, slo)
        except PipelineError as error:
            doubts.append(f"no command can be given for the fresh starts that are missing: {error}")
    return Decision(
        tool_version=__version__,
        studies=pool.studies,
        num_rows=len(pool.rows),
        conditions=pool.conditions,
        gpu_uuids=pool.gpu_uuids,
        slo={key: value for key, value in dataclasses.asdict(slo).items() if value is not None and key != "source"},
        criterion=_criterion(slo, asked.demand),
        basis=basis(winner.candidate),
        is_firm=ranking.is_firm,
        doubts=tuple(doubts),
        winner=say.choice(winner),
        why=why,
        tie_set=tuple(map(say.choice, ranking.tied)),
        detectable=ranking.detectable,
        detectable_basis=ranking.basis,
        runner_up=_comparison(ranking, winner, others[0], say) if others else None,
        front=front(found, slo, say.label),
        throughput=throughput_pick(found, winner.candidate, winner.best, slo, say.label),
        limit=limit(winner.candidate, winner.best, slo),
        fleet=winner.fleet,
        at_saturation=_at_saturation(ranking, winner, say),
        ruled_out={say.label(each.config_json): each.reason for each in ruled_out},
        explanation=explain(
            [each.config.requested() for each, _ in fit], [math.log(best.output_tokens_per_joule) for _, best in fit]
        ),
        finals_command=command,
        trial=pool.trials[winner.best.rows[-1].trial_id],
    )


def _contender(candidate: Candidate, best: Point, asked: Asked) -> Contender:
    of = None
    if asked.demand is not None:
        of = fleet(candidate, best, asked.demand, asked.idle, asked.prices, asked.provisioned_kw_per_device)
    return Contender(candidate=candidate, best=best, fleet=of)


def _within(contenders: Sequence[Contender], asked: Asked) -> list[Contender]:
    """Those whose fleet fits the devices that there are.

    Raises:
        ConfigError: If none does.
    """
    limit = asked.max_devices
    fleets = [(each, each.fleet) for each in contenders if each.fleet is not None]
    if limit is None or not fleets:
        return list(contenders)
    fit = [each for each, of in fleets if of.devices <= limit]
    if not fit:
        least = min((of for _, of in fleets), key=lambda of: of.devices)
        raise ConfigError(
            f"--max-devices={limit}: the demand of {least.peak_output_tokens_per_s:,.0f} tokens/s takes "
            f"{least.devices} at least, {least.replicas} replicas of {least.capacity_output_tokens_per_s:,.0f} "
            "tokens/s, their measured best under the SLO; ask for less, or give more devices"
        )
    return fit


class _Sayer:
    """Puts candidates in words and values."""

    def __init__(
        self, found: Sequence[Candidate], ranking: Ranking, slo: Slo, warnings: Mapping[str, tuple[str, ...]]
    ) -> None:
        """Remember what all of them are said beside."""
        self._configs = {each.config_json for each in found}
        self._widths = half_width({each.key: each.log_values for each in ranking.ranked}) if ranking.is_told else {}
        self._slo, self._warnings = slo, warnings

    def label(self, config_json: str) -> str:
        """What tells a config from the others."""
        configs = self._configs | {config_json}
        return label(config_json, configs) if len(configs) > 1 else "the only config"

    def choice(self, contender: Contender) -> Choice:
        """A contender at its best load."""
        candidate, best, of = contender.candidate, contender.best, contender.fleet
        met = [slo_met(row, self._slo) for row in best.rows]
        return Choice(
            label=self.label(candidate.config_json),
            engine=candidate.config.engine,
            config=json.loads(candidate.config_json),
            config_hash=candidate.config.config_hash,
            rendered_hash=candidate.rendered_hash,
            study_id=best.rows[-1].study_id,
            trial_ids=tuple(dict.fromkeys(row.trial_id for row in best.rows)),
            row_ids=tuple(row.row_id for row in best.rows),
            basis=basis(candidate),
            num_starts=best.num_starts,
            num_devices=candidate.num_gpus,
            load=best.rows[0].load_text,
            output_tokens_per_joule=best.output_tokens_per_joule,
            rel_ci95=self._widths.get(contender.key),
            output_tokens_per_s=best.output_tokens_per_s,
            power_w=best.power_w,
            output_tokens_per_s_per_user=best.mean("output_tokens_per_s_per_user"),
            latencies_s={name: best.worst(name) for name in LATENCIES},
            slo_met=_least(met),
            fleet_output_tokens_per_joule=of.min_output_tokens_per_joule if of else None,
            usd_per_million_output_tokens=of.usd_per_million_output_tokens if of else None,
            warnings=tuple(sorted({each for row in best.rows for each in self._warnings[row.row_id]})),
        )


def _least(met: Sequence[Met | None]) -> Met | None:
    """What all windows together say: no if one does, yes if all do."""
    if Met.NO in met:
        return Met.NO
    return Met.UNDECIDED if Met.UNDECIDED in met else met[0]


def _criterion(slo: Slo, demand: Demand | None) -> str:
    owed = f"slo={slo.name}"
    if demand is None:
        return f"output tokens per joule at the best load under {owed}"
    return (
        f"output tokens per joule over a day of {demand.output_tokens_per_s:,.0f} tokens/s, profile={demand.profile}, "
        f"no replica above its best load under {owed}"
    )


def _can_start(pool: Pool) -> bool:
    """Whether the rows are of engines that were started here."""
    return pool.rows[0].origin == "own" and pool.rows[0].evidence in {Evidence.MEASURED, Evidence.ESTIMATED}


def _command(pool: Pool, ranking: Ranking, winner: Contender, slo: Slo) -> str | None:
    """What measures the fresh starts that are missing; None of a server that someone else started."""
    study = study_of(pool.trials[winner.best.rows[-1].trial_id])
    if study.engine.name == "attached":
        return None
    trials = [trial for trial in pool.trials.values() if trial.study_id == study.id]
    return finals_command(study, trials, slo, len(ranking.tied) + len(ranking.nominated))


def _doubts(pool: Pool, ranking: Ranking, winner: Contender, slo: Slo, say: _Sayer) -> list[str]:
    """What keeps the decision from being firm, or its reader from taking it further than it goes."""
    first, found = pool.rows[0], list[str]()
    if first.evidence is Evidence.MODELLED:
        return [
            "evidence=modelled: no server ran, and the model is off by more than such configs differ (docs/model.md)"
        ]
    if not winner.candidate.is_fresh:
        found.append("screening only: one start of each config, which nominates and does not decide")
    elif winner.best.num_starts < MIN_ROUNDS:
        found.append("one fresh start: what another start would give is unknown")
    if ranking.is_alone:
        found.append("one config that can be compared: it is the best of nothing")
    if len(ranking.tied) > 1:
        found.append(f"a tie of {len(ranking.tied)}: none is known to be better")
    found += [
        f"{say.label(each.candidate.config_json)} has no fresh start, and in the search "
        f"{100 * math.expm1(each.value - ranking.ranked[0].value):+.1f} % tokens per joule on the best that has"
        for each in ranking.nominated
    ]
    found += _unmeasured(winner.fleet)
    if slo.bounds and _least([slo_met(row, slo) for row in winner.best.rows]) is not Met.YES:
        found.append("the SLO is met by the percentiles seen; bounds on them (95 %) do not prove it yet")
    if len({len(row.gpu_uuids) for row in pool.rows}) > 1:
        found.append("configs ran on different numbers of the same cards, and cards differ by up to 8 %")
    if first.evidence is not Evidence.MEASURED:
        found.append(f"evidence={first.evidence}: nothing here is a measured energy")
    if first.weights != "checkpoint":
        found.append(f"weights={first.weights}: says nothing of the trained model, and is not for production")
    return found


def _unmeasured(of: Fleet | None) -> list[str]:
    """What of a fleet's day no load was measured for."""
    if of is None or not of.hours_below_ladder:
        return []
    return [
        f"in {of.hours_below_ladder} hours a replica serves less than at its lightest measured load: between "
        f"{of.min_output_tokens_per_joule:.3g} and {of.output_tokens_per_joule:.3g} tok/J over the day, ranked by the "
        "lower; measure lighter loads"
    ]


def _comparison(ranking: Ranking, winner: Contender, other: Contender, say: _Sayer) -> Comparison:
    found = ranking.ratio(winner, other)
    return Comparison(
        other=say.choice(other), ratio=found.ratio, low=found.low, high=found.high, interval_basis=found.basis
    )


def _at_saturation(ranking: Ranking, winner: Contender, say: _Sayer) -> Comparison | None:
    """The config that its best load alone would choose, where a demand chooses another: winner / it, over the day."""
    if winner.fleet is None:
        return None
    saturated = rank([dataclasses.replace(each, fleet=None) for each in ranking.ranked]).take()[0]
    (other,) = (each for each in ranking.ranked if each.key == saturated.key)
    return None if other is winner else _comparison(ranking, winner, other, say)
