"""What else could be chosen: the Pareto front, and the pick for throughput."""

from collections.abc import Callable, Sequence

from pipeline.choose.candidate import Candidate, Point
from pipeline.choose.decision import FrontPoint, ThroughputPick, basis
from pipeline.workload import Slo

Label = Callable[[str], str]
"""What tells a config (as JSON) from the others."""


def front(found: Sequence[Candidate], slo: Slo, label: Label) -> tuple[FrontPoint, ...]:
    """Loads under the SLO that no other load of any config beats in both; the most tokens per joule first."""
    points = [
        (point.output_tokens_per_joule, per_user, each, point)
        for each in found
        for point in each.points
        if point.meets(slo) and (per_user := point.mean("output_tokens_per_s_per_user")) is not None
    ]
    front, fastest = [], 0.0
    for tokens_per_joule, per_user, each, point in sorted(points, key=lambda item: (-item[0], -item[1])):
        if per_user > fastest:
            fastest = per_user
            front.append(
                FrontPoint(
                    label=label(each.config_json),
                    config_hash=each.config.config_hash,
                    load=point.rows[0].load_text,
                    output_tokens_per_joule=tokens_per_joule,
                    output_tokens_per_s_per_user=per_user,
                    basis=basis(each),
                )
            )
    return tuple(front)


def throughput_pick(
    found: Sequence[Candidate], winner: Candidate, own: Point, slo: Slo, label: Label
) -> ThroughputPick:
    """The most tokens per second and device among loads that meet the SLO, of which there are some.

    Args:
        found: All candidates.
        winner: The one that was chosen.
        own: Its best load.
        slo: What is owed.
        label: Names configs.
    """
    per_device = [
        (point.output_tokens_per_s / each.num_gpus, each, point)
        for each in found
        for point in each.points
        if point.meets(slo)
    ]
    most, each, point = max(per_device, key=lambda item: item[0])
    num = winner.num_gpus
    return ThroughputPick(
        label=label(each.config_json),
        config_hash=each.config.config_hash,
        load=point.rows[0].load_text,
        is_same=each is winner and point is own,
        output_tokens_per_joule=point.output_tokens_per_joule,
        output_tokens_per_s_per_device=most,
        power_w_per_device=point.power_w / each.num_gpus,
        tokens_per_joule_ratio=own.output_tokens_per_joule / point.output_tokens_per_joule,
        tokens_per_s_per_device_ratio=own.output_tokens_per_s / num / most,
        power_per_device_ratio=(own.power_w / num) / (point.power_w / each.num_gpus),
    )
