"""How long a window has to be: for the requests it must hold, and for the certainty that is asked of it."""

from pipeline.interval import Interval
from pipeline.study import Plan


def window_length_s(plan: Plan, e2e_p50_s: float | None) -> tuple[float, bool]:
    """Length of the window to open, and whether it is long enough for the requests.

    It grows from `plan.window_s` to hold `plan.min_request_durations` of the median request, up to
    `plan.window_max_s`; without that cap set it does not grow. Where no request has ended yet, the cap is taken and
    is not known to be enough.

    Args:
        plan: The measuring plan.
        e2e_p50_s: Median request duration seen so far, or None.
    """
    longest_s = max(plan.window_s, plan.window_max_s or 0.0)
    if not plan.min_request_durations:
        return plan.window_s, True
    if e2e_p50_s is None:
        return longest_s, False
    wanted_s = max(plan.window_s, plan.min_request_durations * e2e_p50_s)
    return min(wanted_s, longest_s), wanted_s <= longest_s


def must_extend(interval: Interval | None, plan: Plan) -> bool:
    """Whether a window's interval is unknown, or wider than the plan allows: measure on, once, to twice its length."""
    return plan.max_rel_ci95 is not None and (interval is None or interval.rel_ci95 > plan.max_rel_ci95)
