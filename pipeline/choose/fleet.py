"""Replicas of one config for a demand: how many, what they draw over the day, and what a million tokens cost.

All replicas run all day and share the load evenly. Their number is what the busiest hour needs with none above its best
measured load, so no throughput is extrapolated; the power of one at partial load lies on straight lines through its
measured loads, tokens per second against watts. Below the lightest of them the line ends at idle power, which no row
measures: it is declared. Power rises steeply at light load (an H100 draws most of its limit with 8 users), so that line
lies too low, the more so the fewer light loads were measured: contenders are ranked by the bound from above, for which
a replica below its lightest load draws as much as there. Swings within an hour are not in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.choose.candidate import Candidate, Point
from pipeline.choose.demand import HOURS, Demand
from pipeline.columns import column
from pipeline.errors import ConfigError
from pipeline.study import Hardware

HOUR_S = 3600
J_PER_KWH = 3.6e6
W_PER_MW = 1e6

ROUNDING = 1e-9
"""A demand that equals what was measured is neither above nor below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What one device draws while nothing is asked of it, and who says so."""

    power_w: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What is declared of costs; None is left out of them, and said to be.

    `usd_per_device_h` is of one GPU (of a CPU: one machine), `pue` facility power / IT power.
    """

    usd_per_device_h: float | None = None
    usd_per_kwh: float | None = None
    pue: float | None = None


def idle_of(hardware: Hardware, given_w: float | None) -> Idle | None:
    """Idle power per device: as given, else as conf/hardware declares it; None where neither does.

    Raises:
        ConfigError: If what is given is no number from 0 on.
    """
    if given_w is not None:
        return Idle(power_w=_declared("--idle-w-per-device", given_w, least=0.0), source="given")
    if hardware.kind == "cpu":
        key, power_w = "declared_idle_w", hardware.declared_idle_w
    else:
        key, power_w = "idle_power_w", hardware.idle_power_w
    return None if power_w is None else Idle(power_w=power_w, source=f"hardware.{key}, with no engine: at least that")


def prices_of(usd_per_device_h: float | None, usd_per_kwh: float | None, pue: float | None) -> Prices:
    """Prices as declared.

    Raises:
        ConfigError: If one is no number from 0 on, the PUE is below 1, or electricity is priced without it.
    """
    if (usd_per_kwh is None) != (pue is None):
        raise ConfigError("--usd-per-kwh, --pue: electricity is metered behind the cooling; give both (PUE 1: none)")
    return Prices(
        usd_per_device_h=None
        if usd_per_device_h is None
        else _declared("--usd-per-device-h", usd_per_device_h, least=0),
        usd_per_kwh=None if usd_per_kwh is None else _declared("--usd-per-kwh", usd_per_kwh, least=0),
        pue=None if pue is None else _declared("--pue", pue, least=1),
    )


def _declared(option: str, value: float, *, least: float) -> float:
    if not least <= value < math.inf:
        raise ConfigError(f"{option}={value}: must be a number from {least:g} on")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """One hour of the fleet."""

    output_tokens_per_s: float = column("demand")
    output_tokens_per_s_per_replica: float = column("demand / replicas")
    power_w: float = column("of all replicas, within the boundary")
    max_power_w: float = column("the same, if a replica below its lightest measured load draws as much as there")
    is_below_ladder: bool = column(
        "whether a replica runs below its lightest measured load: declared idle power counts"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Replicas of one config for a demand, modelled from its measured ladder."""

    profile: str = column("shape of the day, or the file it came from")
    replicas: int = column("the busiest hour's demand / a replica's tokens/s at its best load, rounded up")
    devices: int = column("GPUs of all replicas; of a CPU, machines")
    capacity_output_tokens_per_s: float = column("of one replica at its best load under the SLO")
    peak_output_tokens_per_s: float = column("demand in the busiest hour")
    peak_power_w: float = column("in the busiest hour, all replicas, within the boundary")
    mean_power_w: float = column("over the day")
    energy_kwh_per_day: float = column("over the day, within the boundary")
    energy_kwh_per_day_switched: float = column("the same if replicas that an hour does not need drew nothing")
    output_tokens_per_joule: float = column("over the day: tokens / joules")
    min_output_tokens_per_joule: float = column("the same by max_power_w of the hours: what fleets are compared by")
    peak_output_tokens_per_s_per_mw: float = column("in the busiest hour, per MW within the boundary")
    output_tokens_per_s_per_provisioned_mw: float | None = column(
        "in the busiest hour, per MW of all-in utility power as conf/hardware declares it; null where it does not"
    )
    idle_power_w_per_device: float | None = column("declared; null where none is known")
    idle_source: str | None = column("who declares it")
    hours_below_ladder: int = column("hours in which declared idle power counts")
    usd_per_million_output_tokens: float | None = column("by the formula; null where no price is declared")
    cost_formula: str | None = column("with its numbers")
    hours: tuple[Hour, ...] = column("from midnight")


def fleet(
    candidate: Candidate,
    best: Point,
    demand: Demand,
    idle: Idle | None,
    prices: Prices,
    provisioned_kw_per_device: float | None,
) -> Fleet:
    """The fleet of a config.

    Args:
        candidate: The config.
        best: Its best load under the SLO; no replica runs above it.
        demand: What all replicas together serve.
        idle: Of one device, if declared.
        prices: As declared.
        provisioned_kw_per_device: All-in utility power, if known.

    Raises:
        ConfigError: If an hour leaves replicas below the lightest measured load and no idle power is declared.
    """
    replicas = _replicas(demand.peak_tokens_per_s, best)
    ladder = [point for point in candidate.points if point.load <= best.load]
    curve = _Curve(ladder, None if idle is None else idle.power_w * candidate.num_gpus)
    hours = [_hour(curve, tokens_per_s, replicas) for tokens_per_s in demand.hours_tokens_per_s]
    tokens = HOUR_S * math.fsum(demand.hours_tokens_per_s)
    energy_j = HOUR_S * math.fsum(hour.power_w for hour in hours)
    switched = [
        _hour(curve, tokens_per_s, needed).power_w
        for tokens_per_s in demand.hours_tokens_per_s
        if (needed := _replicas(tokens_per_s, best))
    ]
    devices = replicas * candidate.num_gpus
    peak_w = max(hour.power_w for hour in hours)
    cost, formula = _cost(tokens, devices, energy_j / J_PER_KWH, prices)
    return Fleet(
        profile=demand.profile,
        replicas=replicas,
        devices=devices,
        capacity_output_tokens_per_s=best.output_tokens_per_s,
        peak_output_tokens_per_s=demand.peak_tokens_per_s,
        peak_power_w=peak_w,
        mean_power_w=energy_j / (HOURS * HOUR_S),
        energy_kwh_per_day=energy_j / J_PER_KWH,
        energy_kwh_per_day_switched=HOUR_S * math.fsum(switched) / J_PER_KWH,
        output_tokens_per_joule=tokens / energy_j,
        min_output_tokens_per_joule=tokens / (HOUR_S * math.fsum(hour.max_power_w for hour in hours)),
        peak_output_tokens_per_s_per_mw=demand.peak_tokens_per_s / peak_w * W_PER_MW,
        output_tokens_per_s_per_provisioned_mw=None
        if provisioned_kw_per_device is None
        else demand.peak_tokens_per_s / (devices * provisioned_kw_per_device * 1e3) * W_PER_MW,
        idle_power_w_per_device=None if idle is None else idle.power_w,
        idle_source=None if idle is None else idle.source,
        hours_below_ladder=sum(hour.is_below_ladder for hour in hours),
        usd_per_million_output_tokens=cost,
        cost_formula=formula,
        hours=tuple(hours),
    )


def _replicas(tokens_per_s: float, best: Point) -> int:
    return math.ceil(tokens_per_s / best.output_tokens_per_s * (1 - ROUNDING))


class _Curve:
    """Power of one replica by its tokens per second."""

    def __init__(self, ladder: Sequence[Point], idle_w: float | None) -> None:
        """Order the measured loads by what they serve."""
        served = sorted((point.output_tokens_per_s, point.power_w) for point in ladder)
        self._lightest, self._lightest_w = served[0]
        self._is_idle_known = idle_w is not None
        known = served if idle_w is None else [(0.0, idle_w), *served]
        self._tokens_per_s, self._power_w = (np.array(values) for values in zip(*known, strict=True))

    def is_below(self, tokens_per_s: float) -> bool:
        """Whether so little was never measured."""
        return tokens_per_s < self._lightest * (1 - ROUNDING)

    def power_w(self, tokens_per_s: float) -> float:
        """Watts of one replica.

        Raises:
            ConfigError: If that would be an extrapolation.
        """
        if self.is_below(tokens_per_s) and not self._is_idle_known:
            raise ConfigError(
                f"demand of {tokens_per_s:.3g} tokens/s per replica: below the lightest measured load "
                f"({self._lightest:.3g} tokens/s), and no idle power is declared; give --idle-w-per-device, measure a "
                "lighter load, or ask for more"
            )
        return float(np.interp(tokens_per_s, self._tokens_per_s, self._power_w))

    def max_power_w(self, tokens_per_s: float) -> float:
        """The same from above: what draws less than the lightest load is not known to, but where nothing is asked."""
        known = self.power_w(tokens_per_s)
        return max(known, self._lightest_w) if tokens_per_s > 0 and self.is_below(tokens_per_s) else known


def _hour(curve: _Curve, tokens_per_s: float, replicas: int) -> Hour:
    each = tokens_per_s / replicas
    return Hour(
        output_tokens_per_s=tokens_per_s,
        output_tokens_per_s_per_replica=each,
        power_w=replicas * curve.power_w(each),
        max_power_w=replicas * curve.max_power_w(each),
        is_below_ladder=curve.is_below(each),
    )


def _cost(tokens: float, devices: int, energy_kwh: float, prices: Prices) -> tuple[float | None, str | None]:
    """US dollars per million output tokens over a day, and how that is computed."""
    terms, usd = [], 0.0
    if prices.usd_per_device_h is not None:
        usd += devices * prices.usd_per_device_h * HOURS
        terms.append(f"{devices} devices x ${prices.usd_per_device_h:g}/h x {HOURS} h")
    if prices.usd_per_kwh is not None and prices.pue is not None:
        usd += energy_kwh * prices.pue * prices.usd_per_kwh
        terms.append(f"{energy_kwh:.4g} kWh x PUE {prices.pue:g} x ${prices.usd_per_kwh:g}/kWh")
    if not terms:
        return None, None
    millions = tokens / 1e6
    return usd / millions, f"({' + '.join(terms)}) / {millions:.4g} million output tokens = ${usd / millions:.3g}"
