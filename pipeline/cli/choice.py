"""A decision as a person reads it: the choice and its rivals, why, the fleet, what mattered, and what is missing."""

from collections.abc import Iterator
from operator import attrgetter

from rich.console import Console
from rich.table import Table

from pipeline.choose.decision import Choice, Comparison, Decision
from pipeline.choose.explain import Explanation
from pipeline.choose.fleet import Fleet
from pipeline.cli.table import number, seconds
from pipeline.config_text import config_text
from pipeline.engine_config import canonical_json

WIDE_COLUMNS, DAY_COLUMNS = 132, 24
"""A terminal below this width has no room for the columns that a wide one adds; those of a demand take more."""

MAX_SHOWN = 8
"""Lines of the first table; a tie can be of dozens of configs."""


FOLDED = frozenset({"config", "axis", "best"})


def print_decision(decision: Decision, console: Console) -> None:
    """Print it."""
    is_wide = console.width >= WIDE_COLUMNS + (0 if decision.fleet is None else DAY_COLUMNS)
    console.print()
    console.print(_choices(decision, is_wide=is_wide))
    for line in _lines(decision):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(_front(decision))
    if decision.fleet is not None:
        for line in _fleet_lines(decision, decision.fleet):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    if decision.explanation.axes:
        console.print(_axes(decision.explanation))
    for line in (*_explained(decision.explanation), *_open(decision)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _table(title: str, left: int, *names: str) -> Table:
    """A table whose first columns are text; of a narrow one those of FOLDED give way, and no number."""
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for position, name in enumerate(names):
        is_text = position < left
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=name not in FOLDED)
    return table


def _choices(decision: Decision, *, is_wide: bool) -> Table:
    """The winner, the tie, the runner-up."""
    more = ("tok/s/user", "TTFT p99", "TPOT p99", "W", "devices", "starts") if is_wide else ("starts",)
    day = () if decision.fleet is None else ("day tok/J", *(("$/Mtok",) if decision.fleet.cost_formula else ()))
    more = (*(("tok/s",) if is_wide or not day else ()), *more)
    table = _table(_title(decision), 2, "", "config", "load", "tok/J", "±95 %", *day, *more)
    roles = list(_roles(decision))
    table.caption = f"and {len(roles) - MAX_SHOWN} more" if len(roles) > MAX_SHOWN else None
    for role, choice in roles[:MAX_SHOWN]:
        table.add_row(
            role, choice.label, *_figures(choice, is_wide=is_wide), style="green" if role == "chosen" else None
        )
    return table


def _roles(decision: Decision) -> Iterator[tuple[str, Choice]]:
    shown = {decision.winner.config_hash + decision.winner.rendered_hash}
    yield "chosen", decision.winner
    others = [("tie", each) for each in decision.tie_set]
    others += [("runner-up", decision.runner_up.other)] if decision.runner_up else []
    others += [("at saturation", decision.at_saturation.other)] if decision.at_saturation else []
    for role, choice in others:
        key = choice.config_hash + choice.rendered_hash
        if key not in shown:
            yield role, choice
        shown.add(key)


def _figures(choice: Choice, *, is_wide: bool) -> list[str]:
    ci = "-" if choice.rel_ci95 is None else f"{100 * choice.rel_ci95:.1f} %"
    starts = str(choice.num_starts) if choice.basis == "fresh_starts" else "screened"
    of_day = (choice.fleet_output_tokens_per_joule, choice.usd_per_million_output_tokens)
    day = [number(value) for value in of_day if value is not None]
    first = [choice.load, number(choice.output_tokens_per_joule), ci, *day]
    first += [number(choice.output_tokens_per_s)] if is_wide or not day else []
    if not is_wide:
        return [*first, starts]
    return [
        *first,
        number(choice.output_tokens_per_s_per_user),
        seconds(choice.latencies_s["ttft_p99_s"]),
        seconds(choice.latencies_s["tpot_p99_s"]),
        number(choice.power_w),
        str(choice.num_devices),
        starts,
    ]


def _title(decision: Decision) -> str:
    """What was compared, and how."""
    held = decision.conditions
    engines = " ".join(
        f"{key.rpartition('.')[2]} {value}" for key, value in held.items() if key.startswith("engine_version.")
    )
    bounds = ", ".join(f"{key}={value:g}" for key, value in decision.slo.items() if key != "name")
    return (
        f"{held['model']} on {held['gpu_name'] or held['hardware']}, {engines}, {held['workload']}, "
        f"slo={decision.slo['name']}{f' ({bounds})' if bounds else ''}; evidence={held['evidence']}, "
        f"boundary={held['boundary']}, weights={held['weights']}; {decision.num_rows} valid rows of "
        f"{', '.join(decision.studies[:3])}{' ...' if len(decision.studies) > 3 else ''}"
    )


def _lines(decision: Decision) -> Iterator[str]:
    """The choice and what stands against it."""
    winner, pick = decision.winner, decision.throughput
    said = "chosen" if decision.is_firm else "chosen for now"
    yield f"{said}, by {decision.criterion}: {config_text(canonical_json(winner.config))}"
    is_tie = len(decision.tie_set) > 1
    yield f"  of a tie of {len(decision.tie_set)}, this one: {decision.why}" if is_tie else f"  {decision.why}"
    yield f"  differences from {100 * decision.detectable:.1f} % on show ({decision.detectable_basis})"
    if decision.runner_up is not None:
        yield f"runner-up: {_compared(decision.runner_up)}"
    if pick.is_same:
        yield "throughput: the same config and load also gives the most tokens/s per device under the SLO"
    else:
        yield (
            f"throughput: [{pick.label}] at load {pick.load} gives the most, "
            f"{number(pick.output_tokens_per_s_per_device)} tok/s per device; the choice has "
            f"{_percent(pick.tokens_per_s_per_device_ratio)} tokens/s, {_percent(pick.power_per_device_ratio)} watts, "
            f"{_percent(pick.tokens_per_joule_ratio)} tokens/J"
        )
    yield f"limit: {decision.limit.text}"
    for config, reason in decision.ruled_out.items():
        yield f"ruled out: [{config}] {reason}"


def _compared(found: Comparison) -> str:
    return (
        f"[{found.other.label}]; the choice has {_percent(found.ratio)} tokens/J on it (95 %: {_percent(found.low)} to "
        f"{_percent(found.high)}; {found.interval_basis})"
    )


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _front(decision: Decision) -> Table:
    title = "Pareto front under the SLO: no other load of any config has more of both"
    table = _table(title, 1, "config", "load", "tok/J", "tok/s/user", "starts")
    for point in decision.front:
        figures = number(point.output_tokens_per_joule), number(point.output_tokens_per_s_per_user)
        table.add_row(point.label, point.load, *figures, "fresh" if point.basis == "fresh_starts" else "screening")
    return table


def _fleet_lines(decision: Decision, fleet: Fleet) -> Iterator[str]:
    yield (
        f"fleet, modelled from the loads measured: {fleet.replicas} replicas, {fleet.devices} devices, "
        f"none above {number(fleet.capacity_output_tokens_per_s)} tok/s; profile={fleet.profile}"
    )
    busiest, quietest = (pick(fleet.hours, key=attrgetter("output_tokens_per_s")) for pick in (max, min))
    for name, hour in {"busiest": busiest, "quietest": quietest}.items():
        yield (
            f"  {name} hour (from {fleet.hours.index(hour)} h): {number(hour.output_tokens_per_s)} tok/s, "
            f"{number(hour.output_tokens_per_s_per_replica)} per replica, {number(hour.power_w / 1e3)} kW"
        )
    provisioned = fleet.output_tokens_per_s_per_provisioned_mw
    utility = "" if provisioned is None else f", {number(provisioned)} per MW provisioned (conf/hardware, all-in)"
    yield (
        f"  {number(fleet.mean_power_w / 1e3)} kW on average, boundary={decision.conditions['boundary']}: "
        f"{number(fleet.energy_kwh_per_day)} kWh a day ({number(fleet.energy_kwh_per_day_switched)} if replicas were "
        "off in hours that do not need them)"
    )
    yield (
        f"  {number(fleet.output_tokens_per_joule)} tok/J over the day; in the busiest hour "
        f"{number(fleet.peak_output_tokens_per_s_per_mw)} tok/s per MW within the boundary{utility}"
    )
    if fleet.hours_below_ladder:
        yield (
            f"  in {fleet.hours_below_ladder} hours a replica serves less than at its lightest measured load; the line "
            f"ends at {number(fleet.idle_power_w_per_device)} W per device ({fleet.idle_source}), and lies too low: "
            f"{number(fleet.min_output_tokens_per_joule)} tok/J at least, by which configs are ranked"
        )
    yield f"  cost: {fleet.cost_formula} per million" if fleet.cost_formula else "  cost: no price declared"
    if decision.at_saturation is None:
        yield "  the best load alone would choose the same config"
    else:
        yield f"  at its best load alone another would be chosen: {_compared(decision.at_saturation)}"


def _axes(found: Explanation) -> Table:
    title = (
        f"what mattered, over {found.num_configs} configs (R^2 of configs not shown: {number(found.forest_r2)}); tok/J "
        "of the best value on the mean of the others"
    )
    table = _table(title, 1, "axis", "importance", "best", "configs", "tok/J", "95 %")
    for axis in found.axes:
        effect = "-" if axis.ratio is None else _percent(axis.ratio)
        interval = "-" if axis.low is None or axis.high is None else f"{_percent(axis.low)} to {_percent(axis.high)}"
        table.add_row(axis.axis, f"{100 * axis.importance:.0f} %", axis.best, str(axis.num_best), effect, interval)
    return table


def _explained(found: Explanation) -> Iterator[str]:
    yield from found.sentences
    if found.why_not is not None:
        yield f"what mattered: {found.why_not}"


def _open(decision: Decision) -> Iterator[str]:
    """What is missing, and the command that measures it."""
    for doubt in decision.doubts:
        yield f"mind: {doubt}"
    if decision.finals_command is not None:
        yield f"the fresh starts that would decide it: {decision.finals_command}"
