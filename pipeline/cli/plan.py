"""`tpw plan`: what a sweep would do: configs, exclusions by reason, expected hours and kWh. Starts nothing."""

import os
import re
from collections import Counter
from typing import Annotated

import typer

from pipeline.cli.host import prepare
from pipeline.cli.second_opinion import show_second_opinion
from pipeline.cli.terminal import terminal
from pipeline.config_text import config_text
from pipeline.engine.catalog import find_engine, refusal
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.trtllm.multinode import why_not_here
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.grouping import grouped
from pipeline.precision import formats
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import predict_loads
from pipeline.search.ladder import TYPICAL_LOADS, loads_of
from pipeline.search.recipe_seeds import recipe_seeds
from pipeline.space import baseline_of, build_space
from pipeline.study import Study

START_S = {"cpu": 2.5, "gpu": 150.0}
"""An engine start: the embedded engine is ready in 1-2 s; vLLM on an H100 took 104-166 s."""


def plan(overrides: Annotated[list[str] | None, typer.Argument(help="group=choice or key=value")] = None) -> None:
    """Say what a sweep would do, before it costs anything."""
    from pipeline.warmup import NUM_STEADY_BLOCKS  # with statistics, which take a second to load

    console = terminal()
    prepared = prepare(overrides or [])
    study = prepared.study
    engine = find_engine(study)
    if study.rig == "served":
        find_runtime(study.engine)  # an image that it does not take is refused here too
    here = why_not_here if study.rig == "served" else lambda *_: None
    space = build_space(study, lambda config: refusal(engine, config, study) or here(config, study))
    for note in prepared.notes:
        console.print(note, style="yellow")
    console.print(f"study {study.id}")
    console.print(space.describe(), soft_wrap=True)
    for reason, count in grouped_reasons(space.exclusions):
        console.print(f"  {count:6d}  {reason}" if count < 10**6 else f"  {count:.0e}  {reason}")
    for config in {config.precision: config for config in reversed(space.configs)}.values():
        if (found := formats(config, study.model, study.hardware)) is not None:
            console.print(
                f"precision {config.precision.weights}, KV {config.precision.kv_cache}: {found}", soft_wrap=True
            )
    baseline = baseline_of(study, space)
    console.print(f"trial 0, the baseline: {config_text(canonical_json(baseline.requested()))}")
    seeds = recipe_seeds(study, space.refusal)
    for note in seeds.notes:
        console.print(note, style="yellow", highlight=False, soft_wrap=True, markup=False)
    if study.search.aiconfigurator_python is not None:
        show_second_opinion(console, study, space.configs)
    num_trials = min(study.search.budget_trials, len(space.configs) + 1 + len(seeds.configs))
    settled_s = max(study.plan.warmup_s, NUM_STEADY_BLOCKS * study.plan.block_s)
    point_s = settled_s + study.plan.windows * (study.plan.window_s + study.plan.check_s)
    start_s, is_adaptive = START_S[study.hardware.kind], study.search.ladder == "adaptive"
    num_points = len(loads_of(study))
    num_loads = min(TYPICAL_LOADS, num_points) if is_adaptive else num_points
    budget_s = study.search.ladder_budget_s
    loads_s = num_loads * point_s if budget_s is None else min(num_loads * point_s, max(budget_s, point_s))
    hours = num_trials * (start_s + loads_s) / 3600
    loads = f"{'about ' if is_adaptive else ''}{num_loads} loads x {point_s:g} s"
    loads += "" if budget_s is None else f", at most {budget_s:g} s"
    power_w = expected_power_w(study, baseline)
    where = f"to measure it on {study.hardware.name}: " if study.rig == "modelled" else ""
    console.print(
        f"{where}{num_trials} trials x (start {start_s:g} s + {loads}) = {hours:.2f} h; "
        f"at {power_w:.0f} W while loaded: {hours * power_w / 1000:.3f} kWh"
    )


def grouped_reasons(exclusions: Counter[str]) -> list[tuple[str, int]]:
    """Reasons with how often they hold, the commonest first; those that differ in numbers only are one."""
    groups = grouped(exclusions.most_common(), lambda each: re.sub(r"\d+(\.\d+)?", "N", each[0]))
    found = []
    for group in groups.values():
        others = f" (and {len(group) - 1} more with other numbers)" if len(group) > 1 else ""
        found.append((group[0][0] + others, sum(count for _, count in group)))
    return sorted(found, key=lambda each: -each[1])


def expected_power_w(study: Study, config: EngineConfig) -> float:
    """Mean power over the ladder: the roofline's for a GPU, the declared model at full load for a CPU."""
    hardware = study.hardware
    if hardware.kind == "cpu":
        return (hardware.declared_idle_w or 0.0) + (hardware.declared_busy_w_per_core or 0.0) * (os.cpu_count() or 1)
    load = study.workload
    found = predict_loads(study.model, hardware, load, config, load.ladder, calibration_of(study))
    watts = [] if isinstance(found, str) else [each.power_w for each in found]
    return sum(watts) / len(watts) if watts else config.parallelism.num_gpus * (hardware.board_power_w or 0.0)
