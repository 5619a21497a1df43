"""`tpw quality`: does a candidate config still answer as a reference does?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.cli.host import prepare, with_default_knobs
from pipeline.cli.table import number
from pipeline.cli.terminal import terminal
from pipeline.compose import compose_conf
from pipeline.errors import ConfigError
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.quality.record import QualityResult

OWN = ("candidate", "reference")
"""Words of this command; all others are the study's, or quality.*."""


def quality(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="candidate=WHAT reference=WHAT quality.key=value group=choice")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON and nothing else")] = False,
) -> None:
    """Compare a candidate with a reference, store what was found, and say whether it passes.

    Raises:
        ConfigError: If a side is not named, does not start or does not answer, or their tokenizers differ.
        Exit: With status 1 unless the candidate passes.
    """
    from pipeline.quality.gate import check
    from pipeline.quality.record import Verdict, append_result
    from pipeline.quality.record import as_json as plain
    from pipeline.quality.settings import load_settings
    from pipeline.quality.side import find_side

    words = list(overrides or [])
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    for role in OWN:
        if not given.get(role):
            raise ConfigError(
                f"{role}=: name it: the url of a server, a YAML file of a config, a folder of engines/production, or a "
                "trial's id"
            )
    rest = [word for word in words if word.partition("=")[0] not in OWN]
    settings, results_dir = load_settings(rest), Path(str(compose_conf(rest)["results_dir"]))
    candidate, reference = (
        find_side(role, given[role], lambda: with_default_knobs(prepare(rest)).study, Store(results_dir))
        for role in OWN
    )
    console = terminal()
    result = check(
        candidate,
        reference,
        settings,
        report=lambda text: None if as_json else console.print(f"  {text}", style="dim", soft_wrap=True),
    )
    path = append_result(results_dir, result)
    if as_json:
        print(json.dumps({"schema_version": 1, "verdict": result.verdict, "findings": plain(result)}, indent=1))
    else:
        console.print(_table(result))
        for note in dict.fromkeys(note for finding in result.findings for note in finding.notes):
            console.print(note, style="yellow", soft_wrap=True, highlight=False)
        console.print(f"{result.verdict}: {path}", soft_wrap=True, highlight=False)
    if result.verdict is not Verdict.PASS:
        raise typer.Exit(1)


def _table(result: "QualityResult") -> Table:
    first = result.findings[0]
    title = (
        f"candidate {first.candidate} ({first.candidate_engine}) beside reference {first.reference} "
        f"({first.reference_engine}); model {first.model or 'as served'}, weights={first.weights or 'not told'}"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("check", "metric", "value", "95 % interval", "threshold", "verdict", "tokens", "prompts"):
        table.add_column(name, justify="left" if name in {"check", "metric", "verdict"} else "right", overflow="fold")
    for each in result.findings:
        interval = "-" if each.low is None or each.high is None else f"{each.low:.4g} to {each.high:.4g}"
        table.add_row(
            each.check, each.metric, number(each.value), interval, number(each.threshold), each.verdict or "-",
            str(each.num_tokens or "-"), str(each.num_prompts or "-"),
        )  # fmt: skip
    return table
