"""One group of starts that may be compared: its gains, where they come from, and what is missing."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pipeline.config_text import label
from pipeline.record import Row
from pipeline.track.attribution import Attribution, attribute
from pipeline.track.contrast import Difference, Spread
from pipeline.track.gain import Best, CaseGain, best, case_gains, mean_gain, retuned_gain
from pipeline.track.release import Release
from pipeline.track.series import CaseSeries, Change, Line, start_spread_of
from pipeline.track.sides import Sides
from pipeline.track.spread import ASSUMED_START, card_spread, start_spread
from pipeline.track.starts import History, Start
from pipeline.track.tracking import (
    AttributionFound,
    BestFound,
    CaseFound,
    ChangeFound,
    CornerFound,
    FactorFound,
    GroupFound,
    InteractionFound,
    MissingFound,
    Ratio,
    ReleaseFound,
    SeriesFound,
)
from pipeline.vocabulary import Evidence
from pipeline.workload import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Starts that may be compared, and the sides of those that are.

    Attributes:
        starts: All of them.
        sides: What is compared.
        invalid: Rows that are not valid, of any group.
        start: How far starts differ.
        card: How far cards differ.
    """

    starts: Sequence[Start]
    sides: Sides
    invalid: Sequence[tuple[Row, Release]]
    start: Spread
    card: Spread

    @classmethod
    def of(cls, starts: Sequence[Start], sides: Sides, history: History) -> "Group":
        """With the spread of starts that its own tell, and that of cards by everything that ran on their type."""
        types = {start.facts["gpu_name"] for start in starts}
        alike = [start for start in history.starts if start.facts["gpu_name"] in types]
        return cls(
            starts=starts, sides=sides, invalid=history.invalid, start=start_spread(starts), card=card_spread(alike)
        )

    def sharpened(self, lines: Sequence[Line]) -> "Group":
        """Where no start was repeated its series may tell how far starts differ."""
        told = start_spread_of(lines) if self.start is ASSUMED_START else None
        return self if told is None else replace(self, start=told)

    @property
    def is_modelled(self) -> bool:
        """Whether no server ran."""
        return self.starts[0].facts["evidence"] is Evidence.MODELLED

    def label(self, config_json: str) -> str:
        """What tells a config from the others."""
        configs = {start.row.config_json for start in self.starts}
        return label(config_json, configs) if len(configs) > 1 else "the only config"

    def found(self, slo: Slo, series: Sequence[CaseSeries]) -> GroupFound:
        """Everything about it."""
        gains = case_gains(self.sides.before, self.sides.after, self.start, self.card)
        before, after = best(self.sides.before, slo), best(self.sides.after, slo)
        retuned = attribution = None
        if before is not None and after is not None:
            retuned = retuned_gain(before, after, self.start, self.card)
            attribution = attribute(before, after, self.starts, self.start, self.card)
        return GroupFound(
            conditions=dict(self.starts[0].problem),
            before=self.sides.before_text,
            after=self.sides.after_text,
            start_spread=self.start.basis,
            card_spread=self.card.basis,
            cases=tuple(self._case(gain) for gain in gains),
            frozen=self._ratio(mean_gain(gains, self.start, self.card)) if gains else None,
            missing=tuple(self._missing()),
            best_before=self._best(before),
            best_after=self._best(after),
            retuned=self._ratio(retuned) if retuned else None,
            attribution=self._attribution(attribution) if attribution else None,
            series=tuple(map(self._series, series)),
            notes=tuple(self._notes(gains, (before, after))),
        )

    def _ratio(self, found: Difference) -> Ratio:
        ratio, low, high = found.ratio
        if self.is_modelled:
            return Ratio(ratio=ratio, low=None, high=None, is_across_cards=False)
        return Ratio(ratio=ratio, low=low, high=high, is_across_cards=found.is_across_cards)

    def _case(self, gain: CaseGain) -> CaseFound:
        after = gain.after[-1]
        return CaseFound(
            case_id=after.case,
            label=self.label(after.row.config_json),
            config_hash=after.row.config_hash,
            load=after.row.load_text,
            before_output_tokens_per_joule=_mean(gain.before),
            after_output_tokens_per_joule=_mean(gain.after),
            num_starts_before=len(gain.before),
            num_starts_after=len(gain.after),
            gain=self._ratio(gain.difference),
        )

    def _missing(self) -> list[MissingFound]:
        before, after = ({start.case: start for start in side} for side in (self.sides.before, self.sides.after))
        return [
            MissingFound(
                case_id=case,
                label=self.label(start.row.config_json),
                load=start.row.load_text,
                side=side,
                reason=self._why(start, other),
            )
            for side, has, lacks, other in (
                ("after", before, after, self.sides.after),
                ("before", after, before, self.sides.before),
            )
            for case, start in has.items()
            if case not in lacks
        ]

    def _why(self, start: Start, side: Sequence[Start]) -> str:
        """Why the starts of a side are none of a case: windows of it on the same releases that are not valid."""
        releases = {each.release for each in side} - {start.release}
        reasons = sorted(
            {
                reason
                for row, release in self.invalid
                if row.case_id == start.row.case_id and release in releases
                for reason in row.reasons
            }
        )
        return f"no valid window: {', '.join(reasons)}" if reasons else "not measured"

    def _best(self, found: Best | None) -> BestFound | None:
        if found is None:
            return None
        row = found.starts[-1].row
        return BestFound(
            case_id=found.starts[-1].case,
            label=self.label(row.config_json),
            config=json.loads(row.config_json),
            config_hash=row.config_hash,
            load=row.load_text,
            output_tokens_per_joule=_mean(found.starts),
            num_starts=len(found.starts),
        )

    def _attribution(self, found: Attribution) -> AttributionFound:
        return AttributionFound(
            total=self._ratio(found.total),
            factors=tuple(
                FactorFound(factor=name, gain=self._ratio(gain) if gain else None)
                for name, gain in found.factors.items()
            ),
            interactions=tuple(
                InteractionFound(factors=pair, gain=self._ratio(gain) if gain else None)
                for pair, gain in found.interactions.items()
            ),
            corners=tuple(
                CornerFound(
                    changed=tuple(name for name in found.factors if name in corner),
                    output_tokens_per_joule=_mean(starts) if starts else None,
                    num_starts=len(starts),
                )
                for corner, starts in found.corners.items()
            ),
        )

    def _series(self, series: CaseSeries) -> SeriesFound:
        last = series.starts[-1]
        return SeriesFound(
            case_id=None if series.is_overall else last.case,
            label="overall" if series.is_overall else self.label(last.row.config_json),
            load=None if series.is_overall else last.row.load_text,
            num_releases=len(series.releases),
            num_visits=series.num_visits,
            is_within_cards=series.is_within_cards,
            noise_sd=series.noise_sd,
            noise_basis=series.noise_basis,
            detectable=None if series.detectable is None else -math.expm1(-series.detectable),
            changes=tuple(map(change_found, series.changes)),
        )

    def _notes(self, gains: Sequence[CaseGain], ends: Sequence[Best | None]) -> list[str]:
        notes = []
        if any(gain.difference.is_across_cards for gain in gains) and not self.is_modelled:
            notes.append(
                f"the sides ran on different cards, or unknown ones: intervals are widened by what cards differ by "
                f"({self.card.basis})"
            )
        if not gains:
            notes.append("no case is on both sides: there is no frozen-config gain")
        if any(found is not None and len(found.starts) == 1 for found in ends):
            notes.append("a best that rests on one start looks better than it is: the best of many is a lucky one")
        if None in ends:
            notes.append("nothing meets the SLO on one side: there is no re-tuned gain")
        if self.is_modelled:
            notes.append("evidence=modelled: no server ran, and the model's error is in no interval (docs/model.md)")
        if any(start.facts["weights"] == "random" for start in self.starts):
            notes.append("weights=random: says nothing of the trained model")
        return notes


def change_found(change: Change) -> ChangeFound:
    """A step as it is told."""
    return ChangeFound(
        ratio=math.exp(change.log),
        low=math.exp(change.log - change.half_width),
        high=math.exp(change.log + change.half_width),
        remaining_ratio=math.exp(change.remaining_log),
        last_good=release_found(change.last_good),
        first_bad=release_found(change.first_bad),
        likeliest=release_found(change.likeliest),
        changed=change.last_good.changes(change.first_bad),
    )


def release_found(release: Release) -> ReleaseFound:
    """A release as it is told."""
    return ReleaseFound(
        engine=release.engine,
        engine_version=release.engine_version,
        driver_version=release.driver_version,
        image=release.image,
    )


def _mean(starts: Sequence[Start]) -> float:
    return math.exp(fmean(start.log for start in starts))
