"""What measured configs tell of the others: Gaussian processes on the log-residuals between measured and modelled.

One on tokens per joule, one on latency over what is owed, so that the best load under the SLO is found anew for every
config; a third learns where starts fail. Where the model is right the residuals are flat and a few trials tell all;
where it is wrong, or there is none, this is a plain regression.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from pipeline.search.encoding import Array

NOISE_SD = 0.02
"""Of the log of a score: between starts of one config (docs/measurement.md: 0.4 to 2.4 %)."""

RESIDUAL_SD, RESIDUAL_SD_BOUNDS = 0.25, (0.12, 1.0)
"""Of a log-residual over configs, to begin with, and within which it is fitted: what the model is off by. Fewer
residuals than there are choices agree by chance, so that the fit alone would have it that little is left to learn."""

OWN_SHARE = 0.7
"""Of that variance, to begin with: what single choices do by themselves; the rest is of choices taken together."""

LENGTH, LENGTH_BOUNDS = 2.0, (1.0, 5.0)
"""Distance at which two configs still tell of each other; configs that differ in one choice are 1 apart."""

MIN_FITTED = 8
"""Residuals from which on size and reach are fitted, not taken as they are."""

START_SD, START_NOISE_SD = 1.0, 0.3
"""Of +1 for a start that succeeds and -1 for one that fails: over configs, and of one config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the model expects of configs, a line each, at the loads of the study, a column each.

    Attributes:
        log_score: Log of tokens per joule; -inf where it does not fit.
        slack: Log of latency / what is owed, at most 0 where the SLO is met; -inf where nothing is owed.
    """

    log_score: Array
    slack: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of configs that were tried, a line or value each.

    Attributes:
        at: The configs.
        residual: Measured - expected of log tokens per joule, mean over the loads measured; NaN where nothing was.
        slack_residual: The same of slack; NaN where nothing was, or nothing is owed.
        has_started: Whether it gave any row.
        noise_sd: Of the residuals.
    """

    at: Array
    residual: Array
    slack_residual: Array
    has_started: Array
    noise_sd: Array


def improvement(at: Array, expected: Expected, tried: Tried, best: float) -> Array:
    """Expected improvement of the log of the score over the best so far, at the load where it is most, by config.

    Times the probability that the load meets the SLO and that the start succeeds.

    Args:
        at: Configs to judge, a line each.
        expected: By the model.
        tried: What is known.
        best: Log of the best score; -inf before there is any: then the most probable success counts.
    """
    mean, sd = _regression(at, tried.at, tried.residual, tried.noise_sd, RESIDUAL_SD)
    late, late_sd = _regression(at, tried.at, tried.slack_residual, tried.noise_sd, RESIDUAL_SD)
    fit = np.where(np.isfinite(expected.log_score).any(axis=1), 1.0, 0.0)
    outcome = np.where(tried.has_started > 0, 0.0, -2.0)  # against +1, what is expected of what fits
    noise_sd = np.full(len(outcome), START_NOISE_SD)
    start, start_sd = _regression(at, tried.at, outcome, noise_sd, START_SD, is_centred=False, is_fitted=False)
    starts = norm.cdf((fit + start) / np.hypot(START_NOISE_SD, start_sd))
    log_score = expected.log_score + mean[:, None]
    meets = np.where(np.isneginf(expected.slack), 1.0, norm.cdf(-(expected.slack + late[:, None]) / late_sd[:, None]))
    reference = best if np.isfinite(best) else np.nanmin(np.where(np.isfinite(log_score), log_score, np.nan))
    with np.errstate(invalid="ignore"):
        z = (log_score - reference) / sd[:, None]
        gain = sd[:, None] * (z * norm.cdf(z) + norm.pdf(z))
    gain = np.where(np.isfinite(expected.log_score), gain, 0.0)
    most: Array = starts * (gain * meets).max(axis=1)
    return most


def residual_mean(at: Array, tried: Tried) -> Array:
    """Expected residual of log tokens per joule, by config."""
    return _regression(at, tried.at, tried.residual, tried.noise_sd, RESIDUAL_SD)[0]


def _regression(
    at: Array, known_at: Array, known: Array, noise_sd: Array, sd: float, *, is_centred: bool = True,
    is_fitted: bool = True,
) -> tuple[Array, Array]:  # fmt: skip
    """Mean and standard deviation of a Gaussian process around the mean of what is known; its size and reach fitted."""
    is_known = np.isfinite(known)
    known_at, known, noise_sd = known_at[is_known], known[is_known], noise_sd[is_known]
    if not len(known):
        return np.zeros(len(at)), np.full(len(at), sd)
    level = float(np.mean(known)) if is_centred else 0.0
    is_fitted = is_fitted and len(known) >= MIN_FITTED
    bounds = tuple(bound**2 for bound in RESIDUAL_SD_BOUNDS) if is_fitted else "fixed"
    own = ConstantKernel(OWN_SHARE * sd**2, bounds) * DotProduct(0.0, "fixed")
    reach = Matern(LENGTH, LENGTH_BOUNDS if is_fitted else "fixed", nu=2.5)
    joint = ConstantKernel((1 - OWN_SHARE) * sd**2, bounds) * reach
    optimizer = "fmin_l_bfgs_b" if is_fitted else None
    process = GaussianProcessRegressor(own + joint, alpha=noise_sd**2, optimizer=optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a bound reached: few points tell little
        process.fit(known_at, known - level)
    mean, deviation = process.predict(at, return_std=True)
    return level + mean, np.maximum(deviation, 1e-6)
