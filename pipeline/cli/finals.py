"""What the fresh starts of the finalists say, in a few lines: the figure of a sweep that is no lucky single start."""

import math
from collections.abc import Sequence

from pipeline.cli.table import number
from pipeline.config_text import label
from pipeline.multiple_comparison import difference
from pipeline.record import Row, Trial
from pipeline.search.finalists import finals
from pipeline.study import Study


def finals_lines(study: Study, trials: Sequence[Trial], rows: Sequence[Row]) -> list[str]:
    """A line for each finalist, the best first, and one that calls the winner or the tie; none without fresh starts."""
    found = finals(study, trials, rows)
    if not found.num_starts:
        return []
    configs = {trial.config_hash: trial.config_json for trial in trials}
    names = {key: label(configs[key], {configs[each] for each in found.scores}) for key in found.scores}
    ranked = sorted(found.scores, key=lambda key: -sum(found.scores[key]) / len(found.scores[key]))
    lines = [f"fresh starts of the finalists, {found.num_starts} in all:"]
    for key in ranked:
        logs = found.scores[key]
        text = f"  {number(math.exp(sum(logs) / len(logs)))} tok/J over {len(logs)} starts: {names[key]}"
        if key == found.baseline:
            text += " (the baseline)"
        elif found.baseline in found.scores and (gain := difference(found.scores, key, found.baseline)) is not None:
            low, middle, high = (100 * math.expm1(gain[0] + sign * gain[1]) for sign in (-1, 0, 1))
            text += f", {middle:+.1f} % on the baseline (95 %: {low:+.1f} to {high:+.1f} %)"
        lines.append(text)
    if not found.standings:
        lines.append("  too few to tell one from another: each needs two")
    elif found.is_decided:
        lines.append(f"  the best, by multiple comparison: {names[found.tied[0]]}")
    else:
        lines.append(f"  a tie, by multiple comparison, of: {'; '.join(names[key] for key in found.tied)}")
    return lines
