"""What a fleet must serve: output tokens per second, and how that changes over the day."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.compose import nearest
from pipeline.errors import ConfigError
from pipeline.record import Row

HOURS = 24

FLAT = "flat"

SHAPES = {
    FLAT: (1.0,) * HOURS,
    "diurnal": tuple(round(0.6 + 0.4 * math.cos(2 * math.pi * (hour - 15) / HOURS), 3) for hour in range(HOURS)),
}
"""Shapes by name. `diurnal` is made up, not measured: a cosine, a fifth of the demand at 3 h and all of it at 15 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Output tokens per second that all replicas together serve.

    Attributes:
        output_tokens_per_s: Where the factor is 1.
        factors: Of that, hour by hour from midnight.
        profile: Name of the shape, or the file it came from.
    """

    output_tokens_per_s: float
    factors: tuple[float, ...]
    profile: str

    @property
    def hours_tokens_per_s(self) -> tuple[float, ...]:
        """Output tokens per second in each hour."""
        return tuple(self.output_tokens_per_s * factor for factor in self.factors)

    @property
    def peak_tokens_per_s(self) -> float:
        """In the busiest hour."""
        return max(self.hours_tokens_per_s)


def demand_of(
    rows: Sequence[Row], tokens_per_s: float | None, requests_per_s: float | None, profile: str
) -> Demand | None:
    """The demand as given, in requests of the mean output length of these rows; None where none is given.

    Raises:
        ConfigError: If it is given twice, is no number above 0, or the profile is wrong.
    """
    if tokens_per_s is None and requests_per_s is None:
        if profile != FLAT:
            raise ConfigError(f"--profile={_short(profile)}: of which demand? give --tokens-per-s or --requests-per-s")
        return None
    if tokens_per_s is not None and requests_per_s is not None:
        raise ConfigError("--tokens-per-s, --requests-per-s: the demand is given twice; leave one out")
    if tokens_per_s is not None:
        served = _positive("--tokens-per-s", tokens_per_s)
    else:
        known = [(row.osl_mean_tokens, row.num_completed or 1) for row in rows if row.osl_mean_tokens is not None]
        if not known:
            raise ConfigError("--requests-per-s: no row knows the mean output length; give --tokens-per-s")
        mean_tokens = sum(length * count for length, count in known) / sum(count for _, count in known)
        served = _positive("--requests-per-s", requests_per_s or 0.0) * mean_tokens
    return Demand(output_tokens_per_s=served, factors=read_profile(profile), profile=_short(profile))


def _positive(option: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigError(f"{option}={value}: must be a number above 0")
    return value


def read_profile(given: str) -> tuple[float, ...]:
    """24 factors: a shape by name, 24 numbers with commas, or a CSV file with a column `factor`, a line per hour.

    Raises:
        ConfigError: If it is none of these, or not 24 numbers from 0 on of which one is above 0.
    """
    if given in SHAPES:
        return SHAPES[given]
    if "," in given:
        texts = given.split(",")
    elif Path(given).suffix == ".csv":
        texts = _column(Path(given))
    else:
        raise ConfigError(
            f"--profile={given}: unknown{nearest(given, list(SHAPES))}; allowed: {', '.join(SHAPES)}, {HOURS} numbers "
            "with commas, or a FILE.csv with a column `factor`"
        )
    factors = tuple(_factor(given, text) for text in texts)
    if len(factors) != HOURS:
        raise ConfigError(
            f"--profile={_short(given)}: has {len(factors)} factors; a day has {HOURS} hours, give one for each"
        )
    if not any(factors):
        raise ConfigError(f"--profile={_short(given)}: is 0 throughout, so there is nothing to serve")
    return factors


def _column(path: Path) -> list[str]:
    """The column `factor` of a CSV file.

    Raises:
        ConfigError: If the file cannot be read or has no such column.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), skipinitialspace=True)
        lines = list(reader)
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"--profile={path}: cannot be read as CSV: {error}") from error
    if "factor" not in (reader.fieldnames or ()):
        raise ConfigError(f"--profile={path}: has no column factor; its first line names {reader.fieldnames or []}")
    return [line["factor"] or "" for line in lines]


def _factor(given: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"--profile={_short(given)}: factor {text.strip()!r} is no number from 0 on")
    return value


def _short(given: str) -> str:
    return given if len(given) <= 40 else f"{given[:37]}..."
