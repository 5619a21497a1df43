"""The study itself: what a sweep of it would refuse before it starts anything."""

from collections.abc import Iterator

from pipeline.doctor.finding import Finding, findings, not_applicable, ok, problem
from pipeline.doctor.gpus import Gpus
from pipeline.engine.catalog import find_engine, refusal
from pipeline.engine.trtllm.multinode import why_not_here
from pipeline.engine.trtllm.recipes import matching_recipes
from pipeline.rules import why_too_few
from pipeline.space import build_space
from pipeline.study import Study


def study_findings(study: Study, gpus: Gpus) -> Iterator[Finding]:
    """Whether its GPUs are here, its engine has its knobs and takes some config, and its recipes can be read.

    Args:
        study: Of the version that runs, where that is known.
        gpus: Those that are visible.
    """
    if study.engine.name == "attached":
        yield not_applicable("configs", "engine=attached: its configuration is as you declare it")
        return
    if study.disaggregation is not None:
        text = "disaggregation=split: is rendered only"
        yield problem("configs", text, "use tpw render and tpw measure url=..., or leave it out")
        return
    if study.hardware.kind == "gpu" and gpus.states:
        yield from findings("number of GPUs", lambda: _enough(study, len(gpus.states)))
    yield from findings("configs", lambda: _configs(study))
    if study.search.recipes is not None:
        yield from findings("recipes", lambda: _recipes(study))


def _enough(study: Study, num_visible: int) -> Finding:
    too_few = why_too_few(study, num_visible)
    if too_few is None:
        return ok("number of GPUs", f"{num_visible} visible, for hardware.num_gpus={study.hardware.num_gpus}")
    text, _, fix = too_few.partition("; ")
    return problem("number of GPUs", text, fix)


def _configs(study: Study) -> Finding:
    """Whether any is possible.

    Raises:
        ConfigError: If none is, or a knob is unknown.
    """
    engine = find_engine(study)
    space = build_space(study, lambda config: refusal(engine, config, study) or why_not_here(config, study))
    return ok("configs", space.describe().removeprefix("configs: "))


def _recipes(study: Study) -> Finding:
    """Whether they can be read.

    Raises:
        ConfigError: If not, or the engine takes none.
    """
    matched, _ = matching_recipes(study)
    return ok("recipes", f"{len(matched)} of {study.search.recipes} are for this study")
