"""The gain over the vendor's recipes, a line for each load."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.recipe_gain import Gain
from pipeline.workload import Slo

CAVEAT = (
    "  ± is of the windows alone: start-to-start spread is not in it, "
    "and the best of many configs looks better than it is"
)


def gain_lines(gains: Sequence[Gain], slo: Slo) -> list[str]:
    """What the best config of the search gained over NVIDIA's recipe at each load; nothing without a gain."""
    return [*(_line(gain, slo) for gain in gains), *([CAVEAT] if gains else [])]


def _line(gain: Gain, slo: Slo) -> str:
    users, width = gain.row.concurrency, gain.half_width
    load = f"load {gain.row.load_text}" if users is None else f"{users} user{'' if users == 1 else 's'}"
    uncertain = "(± unknown)" if width is None else f"± {100 * width:.1f} %"
    return (
        f"gain over NVIDIA's recipe {gain.recipe} at {load}: {_percent(gain.ratio)} {uncertain} tokens/J "
        f"[{gain.row.evidence}]{_better(gain)}{_owed(gain, slo)}"
    )


def _better(gain: Gain) -> str:
    if gain.better_recipe is None or gain.better_ratio is None:
        return ""
    return f"; {_percent(gain.better_ratio)} over {PurePosixPath(gain.better_recipe).stem}, their best there"


def _owed(gain: Gain, slo: Slo) -> str:
    if gain.is_slo_met is None:
        return ""
    chunks = "" if gain.chunk_tokens is None else f", streaming {gain.chunk_tokens} tokens at a time"
    return f"; the recipe {'meets' if gain.is_slo_met else 'misses'} slo={slo.name}{chunks}"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
