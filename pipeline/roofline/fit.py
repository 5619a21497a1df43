"""Constants of the roofline from measured points: least squares of log errors, within bounds."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from pipeline.roofline.calibration import CONSTANTS, Calibration, Error, Errors
from pipeline.roofline.step import step
from pipeline.roofline.work import Work

POWER_WEIGHT = 2.0
"""Errors of watts weigh this much: they are smaller than those of time and must not drown in them."""

SOFT = 0.15
"""Log error from which on a point pulls linearly, no longer with its square: some published rows are far off."""

PULL = 0.1
"""What a constant that moves by a factor of e from where it is known to be weighs, in log errors of one point: what the
points say nothing of stays, what a few of them agree on moves."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measured operating points, as arrays of one length.

    Attributes:
        work: Of every point.
        running: Requests that ran, of the whole engine.
        tokens_per_s: Output, of the whole engine.
        board_w: Mean power of one board.
    """

    work: Work
    running: Array
    tokens_per_s: Array
    board_w: Array

    def where(self, mask: Mask) -> "Measured":
        """The points that a mask keeps."""
        kept = {f.name: getattr(self.work, f.name)[mask] for f in dataclasses.fields(Work)}
        return Measured(
            work=Work(**kept), running=self.running[mask], tokens_per_s=self.tokens_per_s[mask],
            board_w=self.board_w[mask],
        )  # fmt: skip

    def errors(self, constants: Calibration) -> dict[str, Array]:
        """Log of modelled / measured, by the quantities of `Errors`."""
        done = step(self.work, constants)
        speed = np.log(self.running / done.time_s / self.tokens_per_s)
        power = np.log(done.power_w / self.board_w)
        return {"tokens_per_s": speed, "power_w": power, "j_per_token": power - speed}


def fit(points: Measured, name: str, around: Calibration | None = None) -> Calibration:
    """The constants that explain points best.

    Args:
        points: Measured.
        name: Of the calibration.
        around: Constants to stay near where the points say little; without them there must be points for all.
    """
    start, low, high = (np.log(column) for column in zip(*CONSTANTS.values(), strict=True))
    if around is not None:
        start = np.log([getattr(around, key) for key in CONSTANTS])

    def calibration(logs: Array) -> Calibration:
        constants: dict[str, Any] = dict(zip(CONSTANTS, map(float, np.exp(logs)), strict=True))
        return Calibration(id=name, **constants)

    def residuals(logs: Array) -> Array:
        speed, power, energy = points.errors(calibration(logs)).values()
        own = np.concatenate([speed, POWER_WEIGHT * power, energy])
        return own if around is None else np.concatenate([own, PULL * (logs - start)])

    inside = np.clip(start, low + 1e-9, high - 1e-9)
    return calibration(least_squares(residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=SOFT).x)


def errors_without_own(points: Measured, groups: Sequence[str], around: Calibration | None = None) -> dict[str, Array]:
    """Log errors of every group of points by constants that never saw it.

    Args:
        points: Measured.
        groups: To which each point belongs.
        around: As in `fit`.
    """
    labels = np.array(groups)
    found = {item.name: np.zeros(len(labels)) for item in dataclasses.fields(Errors)}
    for group in sorted(set(groups)):
        own = labels == group
        constants = fit(points.where(~own), f"without-{group}", around)
        for quantity, values in points.where(own).errors(constants).items():
            found[quantity][own] = values
    return found


def summary(errors: dict[str, Array]) -> Errors:
    """Median and 90th percentile of |modelled / measured - 1| from log errors."""
    sizes = {name: np.abs(np.expm1(values)) for name, values in errors.items()}
    return Errors(
        **{
            name: Error(median=round(float(np.median(size)), 4), p90=round(float(np.quantile(size, 0.9)), 4))
            for name, size in sizes.items()
        }
    )
