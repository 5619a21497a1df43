"""Constants of the roofline from measured points: least squares of log errors, within bounds."""

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from pipeline.roofline.calibration import CONSTANTS, Calibration
from pipeline.roofline.step import step
from pipeline.roofline.work import Work

POWER_WEIGHT = 2.0
"""Errors of watts weigh this much: they are smaller than those of time and must not drown in them."""

SOFT = 0.15
"""Log error from which on a point pulls linearly, no longer with its square: some published rows are far off."""

Array = npt.NDArray[np.float64]


def log_errors(
    work: Work, running: Array, tokens_per_s: Array, board_w: Array, constants: Calibration
) -> tuple[Array, Array]:
    """Log of modelled / measured tokens/s, and of watts per board.

    Args:
        work: Of every point.
        running: Requests that ran, of the whole engine.
        tokens_per_s: Measured, of the whole engine.
        board_w: Measured, mean of one board.
        constants: The calibration to judge.
    """
    done = step(work, constants)
    return np.log(running / done.time_s / tokens_per_s), np.log(done.power_w / board_w)


def fit(work: Work, running: Array, tokens_per_s: Array, board_w: Array, name: str) -> Calibration:
    """The constants that explain these points best; the arguments are those of `log_errors`."""
    start, low, high = (np.log(column) for column in zip(*CONSTANTS.values(), strict=True))

    def calibration(logs: Array) -> Calibration:
        return Calibration(id=name, **dict(zip(CONSTANTS, map(float, np.exp(logs)), strict=True)))

    def residuals(logs: Array) -> Array:
        speed, power = log_errors(work, running, tokens_per_s, board_w, calibration(logs))
        return np.concatenate([speed, POWER_WEIGHT * power, speed - power])

    found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=SOFT)
    return calibration(found.x)


def select(work: Work, mask: npt.NDArray[np.bool_]) -> Work:
    """The points that a mask keeps."""
    return Work(**{f.name: getattr(work, f.name)[mask] for f in dataclasses.fields(Work)})
