"""What keeps a config from a heavier load, what relaxing it would gain, and how near an SLO is that nothing meets."""

import math
from collections.abc import Sequence
from operator import attrgetter

from pipeline.choose.candidate import Candidate, Point, RuledOut
from pipeline.choose.decision import Limit, LimitedBy
from pipeline.config_text import config_text, label
from pipeline.workload import Slo


def limit(candidate: Candidate, best: Point, slo: Slo) -> Limit:
    """What ends the ladder at the best load."""
    heavier = next((point for point in candidate.points if point.load > best.load), None)
    if heavier is None:
        return _end_of_range(candidate, best)
    gain = heavier.output_tokens_per_joule / best.output_tokens_per_joule
    bounds, worst = slo.bounds, {column: heavier.worst(column) for column in slo.bounds}
    over = {column: math.e if value is None else value / bounds[column] for column, value in worst.items()}
    most = max(over, key=over.__getitem__, default=None)  # unknown counts as in score.py
    binding = most if most is not None and over[most] > 1 else None
    bound_s, needed_s = (None, None) if binding is None else (bounds[binding], worst[binding])
    seen = "unknown" if needed_s is None else f"{needed_s:.3g} s"
    others = [f"{column} {over[column]:.2f} times" for column in over if over[column] > 1 and column != binding]
    also = f"; so would have to give way: {', '.join(others)} what is owed" if others else ""
    at, change = f"at load {heavier.rows[0].load_text}, the next measured,", f"{100 * (gain - 1):+.1f} %"
    if binding is None:
        text = f"no bound binds: {at} the SLO holds and tokens per joule are {change}"
    elif gain > 1:
        text = f"{binding} binds: owed {bound_s:.3g} s; {at} it is {seen}, and tokens per joule are {change}{also}"
    else:
        text = f"{at} {binding} is {seen} against {bound_s:.3g} s, and relaxing it gains nothing ({change})"
    return Limit(
        limited_by=LimitedBy.SLO if binding and gain > 1 else LimitedBy.EFFICIENCY,
        next_load=heavier.rows[0].load_text,
        binding=binding,
        bound_s=bound_s,
        needed_s=needed_s,
        tokens_per_joule_ratio=gain,
        tokens_per_s_ratio=heavier.output_tokens_per_s / best.output_tokens_per_s,
        text=text,
    )


def _end_of_range(candidate: Candidate, best: Point) -> Limit:
    """Of a best load that is the heaviest with a valid row."""
    holes = sorted((row for row in candidate.invalid if row.load > best.load), key=attrgetter("load"))
    reasons = ", ".join(sorted({reason for row in holes for reason in row.reasons}))
    said = f"; load {holes[0].load_text} was tried and has no valid row ({reasons})" if holes else ""
    return Limit(
        limited_by=LimitedBy.RANGE, next_load=None, binding=None, bound_s=None, needed_s=None,
        tokens_per_joule_ratio=None, tokens_per_s_ratio=None,
        text=f"load {best.rows[0].load_text} is the heaviest with a valid row: no bound is known to bind{said}",
    )  # fmt: skip


def nearest(found: Sequence[Candidate], ruled_out: Sequence[RuledOut], slo: Slo) -> str:
    """Why there is no contender: the nearest load of any config and its gap."""
    if not found:
        return f"no config can be chosen: {'; '.join(each.reason for each in ruled_out)}"
    points = [(point.slack(slo), each, point) for each in found for point in each.points]
    if not points:
        return "no load was measured by two fresh starts of a config; start them again with the same loads"
    _, each, point = min(points, key=lambda item: item[0])
    gaps = []
    for column, bound in slo.bounds.items():
        worst = point.worst(column)
        if worst is None:
            gaps.append(f"{column} is unknown (owed {bound:.3g} s)")
        elif worst > bound:
            gaps.append(f"{column}={worst:.3g} s against {bound:.3g} s, {worst / bound:.2f} times what is owed")
    lightest = " (the lightest load measured)" if point is each.points[0] else ""
    configs = {other.config_json for other in found}
    text = label(each.config_json, configs) if len(configs) > 1 else config_text(each.config_json)
    return (
        f"slo={slo.name}: no measured config meets it; nearest is [{text}] at load {point.rows[0].load_text}{lightest}"
        f": {'; '.join(gaps)}; relax the bound, or measure lighter loads or other configs"
    )
