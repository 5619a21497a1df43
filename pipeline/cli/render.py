"""`tpw render`: engine folders of a study's configs, to read or to start by hand. Needs no GPU, starts nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.cli.host import gpu_choices
from pipeline.cli.table import number
from pipeline.cli.terminal import terminal
from pipeline.compose import compose_conf
from pipeline.config import load_study
from pipeline.errors import ConfigError
from pipeline.study import Study

if TYPE_CHECKING:
    from pipeline.rendering import Rendering

DEFAULT_COUNT = 10

OWN = ("count", "out")
"""Words of this command; all others are the study's."""


def render(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="engine=trtllm model=... hardware=... out=DIR count=N group=choice")
    ] = None,
) -> None:
    """Write the first `count` folders of a study to `out`, in the order in which a sweep would start them.

    Raises:
        ConfigError: If something is unknown or missing, or the folder cannot be used.
    """
    from pipeline.render import renderings
    from pipeline.rendering import write

    words = list(overrides or [])
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    count, out = _count(given.get("count")), _folder(given.get("out"))
    study = study_to_render([word for word in words if word.partition("=")[0] not in OWN])
    _check_free(out)
    found = renderings(study, count)
    try:
        folders = [write(one, out) for one in found.chosen]
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written ({error.strerror or error}); choose another folder") from error
    console = terminal()
    for note in found.notes:
        console.print(note, style="yellow", soft_wrap=True)
    console.print(_table(found.chosen, study))
    missing = sorted({one.meta["model"]["repo"] for one in found.chosen if "model" not in one.values})
    for repo in missing:
        console.print(f"{repo} is not on this machine: serve.sh asks for MODEL=DIR", style="yellow", soft_wrap=True)
    drafts = sorted({one.draft_model for one in found.chosen if one.draft_model and "draft_model" not in one.values})
    for repo in drafts:
        console.print(
            f"{repo} is not on this machine: serve.sh asks for DRAFT_MODEL=DIR", style="yellow", soft_wrap=True
        )
    fewer = f"; there are no more than these, of count={count}" if len(folders) < count else ""
    console.print(
        f"wrote {len(folders)} folders to {out}, of {found.num_possible} possible{fewer}. Nothing was started.",
        soft_wrap=True,
    )


def study_to_render(words: Sequence[str]) -> Study:
    """The study that these words name, completed without looking at this machine.

    Raises:
        ConfigError: If they are wrong, or do not say for which hardware.
    """
    given = {word.lstrip("+~").partition("=")[0]: word.partition("=")[2] for word in words}
    for key, example in (("model", "gpt-oss-120b"), ("hardware", "b200")):
        if key not in given:
            raise ConfigError(f"{key}=: say what to render for, e.g. tpw render {key}={example}")
    engines = compose_conf([f"model={given['model']}"])["model"]["engines"]
    choices = gpu_choices(given) | ({} if "engine" in given else {"engine": engines[0]})
    return load_study([*(f"{key}={choice}" for key, choice in choices.items()), *words])


def _count(text: str | None) -> int:
    if text is None:
        return DEFAULT_COUNT
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"count={text}: takes a whole number from 1 on")
    return int(text)


def _folder(text: str | None) -> Path:
    if not text:
        raise ConfigError("out=: name the folder to write to, e.g. out=rendered")
    return Path(text).expanduser()


def _check_free(out: Path) -> None:
    """Make sure that nothing lies there but engine folders, which are only ever added to.

    Raises:
        ConfigError: If something else does.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out}: is no folder; name another")
    try:
        others = (
            [path.name for path in sorted(out.iterdir()) if not (path / "meta.json").is_file()] if out.exists() else []
        )
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be read ({error.strerror}); name another folder") from error
    if others:
        raise ConfigError(f"out={out}: holds {others[0]}, which is no engine folder; name a new or an empty folder")


def _table(chosen: Sequence["Rendering"], study: Study) -> Table:
    configs = [json.loads(one.requested) for one in chosen]
    shared = {key: value for key, value in configs[0].items() if all(c.get(key) == value for c in configs)}
    first = chosen[0].meta
    version = f" {first['version']}" if first["version"] else ""
    tested = " (untested)" if first["version_is_tested"] is False else ""
    title = (
        f"{study.model.name} on {study.hardware.name}, {study.engine.name}{version}{tested}, {study.workload.name}, "
        f"slo={study.slo.name}; {first['evidence']}; {_in_words(shared)}"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("folder", "config", "GPUs", "modelled tok/J", "by"):
        table.add_column(name, justify="right" if name in {"GPUs", "modelled tok/J"} else "left", overflow="fold")
    for one, config in zip(chosen, configs, strict=True):
        hardware = one.meta["hardware"]
        nodes = f" on {hardware['num_nodes']} machines" if hardware["num_nodes"] > 1 else ""
        table.add_row(
            one.name,
            _in_words({key: value for key, value in config.items() if key not in shared}) or "as above",
            f"{hardware['num_gpus']}{nodes}",
            number(one.meta["modelled_output_tokens_per_joule"]),
            one.meta["proposed_by"],
        )
    return table


def _in_words(config: Mapping[str, object]) -> str:
    """A config in one line; of split servers each kind for itself."""
    kinds: dict[str, list[str]] = {"": []}
    for key, value in config.items():
        kind = next((name for name in ("context", "generation") if key.startswith(f"{name}.")), "")
        name = key.partition("engine.knobs.")[2] or key.rpartition(".")[2]
        kinds.setdefault(kind, []).append(f"{name}={json.dumps(value) if isinstance(value, bool | list) else value}")
    return "; ".join(" ".join([*([f"{kind}:"] if kind else []), *parts]) for kind, parts in kinds.items() if parts)
