"""What our model and aiconfigurator make of the same configs: a table of the first ones, and a line on all of them."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from pipeline.cli.table import number
from pipeline.config_text import label
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.roofline.aiconfigurator import disagreement
from pipeline.roofline.predict import Prediction
from pipeline.search.prior import Judged, best_load, judged, rank
from pipeline.search.second_opinion import Opinion, second_opinion
from pipeline.study import Study

MAX_CONFIGS = 8

COLUMNS = ("config", "load", "tok/s ours", "theirs", "theirs/ours", "tok/J ours", "theirs")

QUANTITIES = {"output_tokens_per_s": "tok/s", "ttft_s": "TTFT", "tpot_s": "TPOT"}


def show_second_opinion(console: Console, study: Study, configs: Sequence[EngineConfig]) -> None:
    """Ask aiconfigurator about these configs and show both opinions.

    Raises:
        ConfigError: If it cannot be asked.
    """
    kinds = {(config.precision, config.parallelism, config.batching): config for config in configs}
    second = second_opinion(study, kinds.values())
    if second.version is not None:
        console.print(_table(study, rank(study, configs)[:MAX_CONFIGS], second))
    console.print(summary([judged(study, config, second) for config in kinds.values()]), soft_wrap=True, markup=False)


def summary(settings: Sequence[Sequence[Judged]]) -> str:
    """How far the two are apart, and what aiconfigurator has no answer to, in one line.

    Args:
        settings: The loads of each precision, parallelism and batching that was asked about.
    """
    loads = [one for setting in settings for one in setting]
    ratios = [disagreement(one.ours, one.theirs) for one in loads if isinstance(one.theirs, Prediction)]
    reasons = Counter(reason(one.theirs) for one in loads if isinstance(one.theirs, str))
    num_silent = sum(not any(isinstance(one.theirs, Prediction) for one in setting) for setting in settings)
    parts = []
    if ratios:
        medians = [f"{text} {number(median(ratio[name] for ratio in ratios))}" for name, text in QUANTITIES.items()]
        parts.append(f"aiconfigurator / ours, median of {len(ratios)} loads: {', '.join(medians)}")
    if reasons:
        parts.append(
            f"no answer at {reasons.total()} loads, at all loads of {num_silent} of {len(settings)} settings, "
            f"most often: {reasons.most_common(1)[0][0]}"
        )
    return "; ".join(parts) or "aiconfigurator was not asked: no config fits"


def reason(text: str) -> str:
    """What cannot be answered, without the sizes that it could not be answered for."""
    return re.split(r" [({]", text, maxsplit=1)[0].rstrip(" :.")


def _table(study: Study, configs: Sequence[EngineConfig], second: Opinion) -> Table:
    """The configs' best loads, by both."""
    table = Table(
        title=f"the first to be tried, by ours and by aiconfigurator {second.version} ({study.engine.name} "
        f"{second.database}), watts ours; modelled",
        title_justify="left",
        title_style="bold",
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "config" else "right", overflow="fold")
    names = [canonical_json(config.requested()) for config in configs]
    for config, name in zip(configs, names, strict=True):
        best = best_load(study, judged(study, config, second))
        if best is None:
            continue
        cells = [best.ours.output_tokens_per_s, None, None, best.ours.output_tokens_per_joule, None]
        if isinstance(best.theirs, Prediction):
            cells[1], cells[4] = best.theirs.output_tokens_per_s, best.theirs.output_tokens_per_joule
            cells[2] = disagreement(best.ours, best.theirs)["output_tokens_per_s"]
        table.add_row(label(name, set(names)), f"{best.point.load:g}", *map(number, cells))
    return table
