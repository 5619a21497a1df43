"""What a study cost, and what repays it, in a few lines."""

import math

from pipeline.bill import BaselineGain, Bill, Spent, payback_device_s
from pipeline.cli.table import number
from pipeline.vocabulary import Boundary
from pipeline.workload import Slo

DAY_S = 86_400
J_PER_KWH = 3.6e6


def bill_lines(bill: Bill) -> list[str]:
    """Hours and kWh of all trials, and of each phase."""
    device, total = _device(bill.boundary), bill.total
    failed = "".join(
        f", {count} {how}" for count, how in ((bill.num_failed, "failed"), (bill.num_unfinished, "unfinished")) if count
    )
    phases = "; ".join(f"{phase} {_hours(spent)} h {_kwh(spent)}" for phase, spent in bill.phases.items())
    lines = [
        f"bill: {bill.num_trials} trial{'' if bill.num_trials == 1 else 's'}{failed}: {_hours(total)} {device}-h, "
        f"{_kwh(total)} within boundary={bill.boundary}",
        f"  {phases}",
    ]
    notes = []
    if total.estimated_j > 0:
        notes.append("~ estimated: by the power of the window that follows, or by declared watts")
    if total.least_j > 0:
        notes.append("≥ at least: by idle power where nothing better is known")
    if total.unknown_s > 0:
        notes.append(f"of {number(total.unknown_s)} s no energy is known, not even idle power")
    if bill.num_unfinished:
        notes.append("of an unfinished trial only warm-up and windows are known")
    return [*lines, *([f"  {'; '.join(notes)}"] if notes else [])]


def payback_line(bill: Bill, gain: BaselineGain | str, slo: Slo) -> str:
    """How many devices at the baseline's power repay the search within a day, or why there is nothing to say."""
    if isinstance(gain, str):
        return f"payback: not told, {gain}"
    energy_j, device = bill.total.energy_j, _device(bill.boundary)
    if energy_j is None:
        return "payback: not told, the energy of the search is unknown"
    repaid_s = payback_device_s(energy_j, gain)
    if repaid_s is None:
        return f"payback: none, no config was measured to do better than the baseline at slo={slo.name}"
    count, mark = max(1, math.ceil(repaid_s / DAY_S)), "≥" if bill.total.is_least else ""
    return (
        f"payback: {100 * (gain.ratio - 1):+.1f} % tokens/J over the baseline at slo={slo.name}, which draws "
        f"{number(gain.baseline_power_w)} W per {device}: {mark}{number(repaid_s / 3600)} "
        f"{device}-h of serving repay the search, a fleet of {count} {device}{'' if count == 1 else 's'} within a day "
        "(by the search's own windows: start-to-start spread is not in it)"
    )


def _device(boundary: Boundary) -> str:
    return "GPU" if boundary is Boundary.GPU else "machine"


def _hours(spent: Spent) -> str:
    return number(spent.device_s / 3600)


def _kwh(spent: Spent) -> str:
    """Energy with a mark for how it is known; a dash where it is not."""
    mark = "≥" if spent.is_least else "~" if spent.estimated_j > 0 else ""
    return "- kWh" if spent.energy_j is None else f"{mark}{number(spent.energy_j / J_PER_KWH)} kWh"
