"""Which of NVIDIA's recipes are for this study: its model, its GPU, its lengths, no more GPUs than there are.

A recipe for another GPU or other lengths is never used; what there is instead is said.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.engine.trtllm.recipe_folder import Recipe, read_folder
from pipeline.errors import ConfigError
from pipeline.grouping import grouped
from pipeline.study import Study

GPU_NAMES = {
    "h100": ("H100_SXM", "H100"),
    "h200": ("H200_SXM", "H200"),
    "b200": ("B200_NVL", "B200"),
    "b300": ("B300_NVL", "B300"),
    "gb200_nvl72": ("GB200_NVL", "GB200_NVL72", "GB200"),
    "gb300_nvl72": ("GB300_NVL", "GB300_NVL72", "GB300"),
}
"""conf/hardware and the names of the tables. Of H100 and H200 only the SXM card is ours, not the NVL card. Source:
H100_SXM, H200_SXM and B200_NVL are in database/lookup.yaml, H100, H200, B200 and GB200 in curated/lookup.yaml; those of
later GPUs are by analogy."""


def matching_recipes(study: Study) -> tuple[list[Recipe], list[str]]:
    """The recipes to try on this study, the most telling first, and what to tell the user.

    Those of the database are tuned for one load: nearest to a load of the ladder first, then one for each concurrency
    in turn, fewest GPUs first. The curated ones, which are for no load in particular, stand in where none matches.

    Raises:
        ConfigError: If the study's engine takes no recipes, or the folder cannot be read.
    """
    folder = study.search.recipes
    if folder is None:
        return [], []
    if study.engine.name != "trtllm":
        raise ConfigError(f"search.recipes={folder}: only engine=trtllm has recipes; leave it out")
    recipes, notes = read_folder(Path(folder))
    ours = [recipe for recipe in recipes if weights_of(recipe, study) is not None]
    if not ours:
        repos = ", ".join(sorted({checkpoint.repo for checkpoint in study.model.checkpoints.values()}))
        models = ", ".join(sorted({recipe.model for recipe in recipes}))
        return [], [*notes, f"search.recipes={folder}: none of its recipes is for {repos}; it has {models}"]
    tuned = [recipe for recipe in ours if recipe.concurrency is not None]
    here = [recipe for recipe in tuned if _is_for_gpu(recipe, study) and _is_for_lengths(recipe, study)]
    if not here:
        notes.append(_none_here(tuned, study))
        here = [recipe for recipe in ours if recipe.concurrency is None and _is_for_gpu(recipe, study)]
        notes.append(f"its {len(here)} curated recipes for any load are considered instead" if here else "")
    matched, left_out = _usable(here, study)
    return _ordered(matched, study.workload.concurrency), [note for note in [*notes, *left_out] if note]


def weights_of(recipe: Recipe, study: Study) -> str | None:
    """The name of the study's checkpoint that a recipe is for (precision.weights); None if it is of another model."""
    repos = {name: checkpoint.repo.lower() for name, checkpoint in study.model.checkpoints.items()}
    return next((name for name, repo in repos.items() if repo == recipe.model.lower()), None)


def _is_for_gpu(recipe: Recipe, study: Study) -> bool:
    names = GPU_NAMES.get(study.hardware.name, (study.hardware.name,))
    return recipe.gpus is None or bool({gpu.upper() for gpu in recipe.gpus} & {name.upper() for name in names})


def _is_for_lengths(recipe: Recipe, study: Study) -> bool:
    return (recipe.isl_tokens, recipe.osl_tokens) == (study.workload.isl_tokens, study.workload.osl_tokens)


def _none_here(tuned: Sequence[Recipe], study: Study) -> str:
    """What the database has for the model, where none of it is for this GPU and these lengths."""
    by_gpu = grouped(tuned, lambda recipe: ", ".join(recipe.gpus or ()))
    has = "; ".join(
        f"{gpu} {', '.join(dict.fromkeys(f'{recipe.isl_tokens}/{recipe.osl_tokens}' for recipe in group))}"
        for gpu, group in by_gpu.items()
    )
    load, folder = study.workload, f"search.recipes={study.search.recipes}"
    if not tuned:
        return f"{folder}: its database has no recipe for {study.model.name}"
    return (
        f"{folder} holds {len(tuned)} recipes for {study.model.name}, none for {study.hardware.name} with "
        f"{load.isl_tokens}/{load.osl_tokens} tokens (it has {has})"
    )


def _usable(recipes: Sequence[Recipe], study: Study) -> tuple[list[Recipe], list[str]]:
    """Those that this study can start, and how many of the others are left out for what."""
    left_out: dict[str, list[Recipe]] = {}
    usable = []
    for recipe in recipes:
        if (why := _why_not(recipe, study)) is None:
            usable.append(recipe)
        else:
            left_out.setdefault(why, []).append(recipe)
    return usable, [f"recipes left out: {len(group)} {why} ({group[0].name})" for why, group in left_out.items()]


def _why_not(recipe: Recipe, study: Study) -> str | None:
    weights, num_gpus = weights_of(recipe, study), study.hardware.num_gpus
    if recipe.disagg:
        return "for one half of disaggregated serving"
    if weights not in study.axes.get("precision.weights", ()):
        return f"for {weights} weights, which the axis precision.weights leaves out"
    if (recipe.num_gpus or 1) > num_gpus:
        return f"for more GPUs than hardware.num_gpus={num_gpus}"
    return None if recipe.path.is_file() else "whose file is not there"


def _ordered(recipes: Sequence[Recipe], ladder: Sequence[int]) -> list[Recipe]:
    """Nearest to a load of the ladder first; then by turns, one of each concurrency, the highest first."""

    def distance(recipe: Recipe) -> float:
        here = recipe.concurrency or 1
        return min((abs(math.log2(here / load)) for load in ladder), default=0.0)

    by_load = grouped(recipes, lambda recipe: recipe.concurrency)
    turns = {
        recipe.name: turn
        for group in by_load.values()
        for turn, recipe in enumerate(sorted(group, key=lambda recipe: recipe.num_gpus or 0))
    }
    return sorted(recipes, key=lambda recipe: (distance(recipe), turns[recipe.name], -(recipe.concurrency or 0)))
