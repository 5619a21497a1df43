"""An axis as a range, {from: 16, to: 1024, log: 2} or {from: 0.8, to: 0.9, step: 0.05}, made the list it stands for.

This is done as conf/ is composed, so that everything else sees lists only: spaces are finite and can be enumerated.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pipeline.errors import ConfigError

MAX_VALUES = 100
"""Of one range; a search of some dozens of trials learns nothing of the differences between more."""

INTEGERS = frozenset({"tp", "pp", "cp", "ep", "moe_tp", "max_batch_size", "max_num_tokens"})
FRACTIONS = frozenset({"kv_cache_fraction"})
"""Axes, beside knobs, that take numbers; the others take words, true and false."""

_KEYS = ("from", "to", "step", "log")
_OF_ENGINE = r"(disaggregation\.(context|generation)\.)?"
_PLAIN = re.compile(_OF_ENGINE + r"(precision|parallelism|batching)\.(?P<name>\w+)")
_KNOB = re.compile(r"(engine|disaggregation\.(context|generation))\.knobs\..+")


def is_range(key: str, value: Any) -> bool:
    """Whether the value of a conf path is meant as a range: any mapping, but that of a knob has `from` or `to`."""
    if not isinstance(value, dict):
        return False
    return _PLAIN.fullmatch(key) is not None or bool(_KNOB.fullmatch(key) and value.keys() & {"from", "to"})


def expanded(value: Any, key: str = "") -> Any:
    """Plain data with every range, alone or as an item of a list, replaced by its values.

    Args:
        value: What conf/ composed to, or a part of it.
        key: Conf path of that part.

    Raises:
        ConfigError: If a range is wrong.
    """
    if is_range(key, value):
        return _values(key, value)
    if isinstance(value, dict):
        return {name: expanded(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()}
    if isinstance(value, list):
        return [each for item in value for each in (_values(key, item) if is_range(key, item) else [item])]
    return value


def _values(key: str, given: Mapping[str, Any]) -> list[int] | list[float]:
    """The values of a range, both ends included; of a knob they are integers where all that is given are.

    Raises:
        ConfigError: If it is no range, does not end where it says, or is of values that the axis does not take.
    """
    text = f"{key}={{{', '.join(f'{name}: {value}' for name, value in given.items())}}}"
    axis = _PLAIN.fullmatch(key)
    name = None if axis is None else axis["name"]
    if name is not None and name not in INTEGERS | FRACTIONS:
        raise ConfigError(f"{text}: takes no range, not being a number; write {key}=[A,B]")
    is_log, numbers = "log" in given, _numbers(text, given)
    first, last, stride = numbers["from"], numbers["to"], numbers["log" if is_log else "step"]
    if first > last:
        raise ConfigError(f"{text}: from is above to; write from: {_text(last)}, to: {_text(first)}")
    if is_log and (stride <= 1 or first <= 0):
        raise ConfigError(f"{text}: each value is the one before times log, so log must be above 1 and from above 0")
    if not is_log and stride <= 0:
        raise ConfigError(f"{text}: each value is the one before plus step, so step must be above 0")
    values = list(_climb(text, numbers, is_log=is_log))
    if values[-1] != last:
        after = values[-1] * stride if is_log else values[-1] + stride
        raise ConfigError(
            f"{text}: {'log' if is_log else 'step'} does not lead from {_text(first)} to {_text(last)}; "
            f"write to: {_text(values[-1])} or to: {_text(after)}"
        )
    odd = next((value for value in values if value != value.to_integral_value()), None)
    if name in INTEGERS and odd is not None:
        raise ConfigError(f"{text}: holds {_text(odd)}, and only integers are allowed; choose integers")
    if name in INTEGERS or all(isinstance(value, int) for value in given.values()):
        return [int(value) for value in values]
    return [float(value) for value in values]


def _numbers(text: str, given: Mapping[str, Any]) -> dict[str, Decimal]:
    """What is given, by name, exactly as written.

    Raises:
        ConfigError: If a key is missing, unknown or too many, or a value is no finite number.
    """
    form = "write {from: A, to: B, step: C} for sums or {from: A, to: B, log: C} for products"
    unknown = sorted(map(str, given.keys() - set(_KEYS)))
    if unknown:
        raise ConfigError(f"{text}: {unknown[0]} is unknown; allowed are {', '.join(_KEYS)}; {form}")
    missing = [name for name in ("from", "to") if name not in given]
    if missing or ("step" in given) == ("log" in given):
        what = f"{missing[0]} is missing" if missing else "exactly one of step and log is needed"
        raise ConfigError(f"{text}: {what}; {form}")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
            raise ConfigError(f"{text}: {name} must be a finite number; {form}")
    return {name: Decimal(str(value)) for name, value in given.items()}


def _climb(text: str, numbers: Mapping[str, Decimal], *, is_log: bool) -> Iterator[Decimal]:
    """The values up to the last that is not above `to`.

    Raises:
        ConfigError: If they are more than MAX_VALUES.
    """
    value, stride = numbers["from"], numbers["log" if is_log else "step"]
    for _ in range(MAX_VALUES):
        yield value
        value = value * stride if is_log else value + stride
        if value > numbers["to"]:
            return
    raise ConfigError(f"{text}: has more than {MAX_VALUES} values; choose a larger {'log' if is_log else 'step'}")


def _text(value: Decimal) -> str:
    """A number without exponent or idle zeros."""
    return f"{value.normalize():f}"
