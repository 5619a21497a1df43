"""`tpw choose`: the config to serve with, from stored rows, under an SLO and for a demand."""

import dataclasses
import fnmatch
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.bounds import E2eBound, Percentile, SloName, TpotBound, TtftBound, Where, bounds_of
from pipeline.cli.show import chosen_study
from pipeline.cli.terminal import terminal
from pipeline.errors import ConfigError
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.choose.conditions import Pool
    from pipeline.choose.decision import Decision
    from pipeline.workload import Slo

Given = Annotated[list[str] | None, typer.Argument(help="study ids, or patterns such as 'h100-*'; the latest study")]


def choose(  # noqa: PLR0913, PLR0917  # an option each
    studies: Given = None,
    where: Where = None,
    slo: SloName = None,
    ttft_s: TtftBound = None,
    tpot_s: TpotBound = None,
    e2e_s: E2eBound = None,
    percentile: Percentile = "p99",
    min_tokens_per_s_per_user: Annotated[float | None, typer.Option(help="least of the median user")] = None,
    tokens_per_s: Annotated[float | None, typer.Option(help="demand: output tokens/s of all users")] = None,
    requests_per_s: Annotated[float | None, typer.Option(help="demand: requests/s of all users")] = None,
    profile: Annotated[
        str, typer.Option(help="of the demand over a day: flat, diurnal, 24 factors, or FILE.csv (column factor)")
    ] = "flat",
    idle_w_per_device: Annotated[float | None, typer.Option(help="watts of a GPU whose engine waits")] = None,
    max_devices: Annotated[int | None, typer.Option(min=1, help="GPUs that there are for the demand")] = None,
    usd_per_device_h: Annotated[float | None, typer.Option(help="declared price of a GPU-hour")] = None,
    usd_per_kwh: Annotated[float | None, typer.Option(help="declared price of electricity; needs --pue")] = None,
    pue: Annotated[float | None, typer.Option(help="declared facility power / IT power")] = None,
    allow_random_weights: Annotated[
        bool, typer.Option("--allow-random-weights", help="let rows of random weights go to production")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="new folder for what was chosen, say engines/production/NAME")
    ] = None,
    rendered: Annotated[
        Path | None, typer.Option("--rendered", help="with --out, of a split deployment: its folder of tpw render")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the decision as JSON (docs/choose.md)")] = False,
    results_dir: Annotated[Path, typer.Option("--results", help="results folder")] = Path("results"),
) -> None:
    """Choose the config with the most tokens per joule.

    Raises:
        ConfigError: If an option is wrong, rows cannot be compared, nothing meets the SLO, or the demand is beyond what
            was measured.
        StoreError: If rows cannot be read, or the folder cannot be written.
    """
    from pipeline.choose.conditions import comparable
    from pipeline.choose.decide import Asked, decide
    from pipeline.choose.decision import decision_json
    from pipeline.choose.demand import demand_of
    from pipeline.choose.fleet import idle_of, prices_of
    from pipeline.choose.owed import owed
    from pipeline.cli.choice import print_decision
    from pipeline.resume import study_of

    if rendered is not None and out is None:
        raise ConfigError(f"--rendered={rendered}: of which bundle? give --out, e.g. engines/production/NAME")
    store = Store(results_dir)
    pool = comparable(store, named(store, studies or []), conditions(where or []))
    held = [study_of(pool.trials[key]) for key in dict.fromkeys(row.trial_id for row in pool.rows)]
    bounds = bounds_of(percentile, ttft_s, tpot_s, e2e_s)
    bounds["output_tokens_per_s_per_user_min"] = min_tokens_per_s_per_user
    demand = demand_of(pool.rows, tokens_per_s, requests_per_s, profile)
    of_fleets = {
        "--idle-w-per-device": idle_w_per_device, "--max-devices": max_devices,
        "--usd-per-device-h": usd_per_device_h, "--usd-per-kwh": usd_per_kwh, "--pue": pue,
    }  # fmt: skip
    unused = [option for option, value in of_fleets.items() if value is not None]
    if demand is None and unused:
        raise ConfigError(f"{', '.join(unused)}: of which demand? give --tokens-per-s or --requests-per-s")
    asked = Asked(
        demand=demand,
        idle=idle_of(held[-1].hardware, idle_w_per_device),
        prices=prices_of(usd_per_device_h, usd_per_kwh, pue),
        provisioned_kw_per_device=held[-1].hardware.provisioned_kw_per_gpu,
        max_devices=max_devices,
    )
    promised = owed([study.slo for study in held], slo, bounds)
    decision = decide(pool, promised, asked)
    if decision.finals_command is not None and results_dir != Path("results"):
        place = shlex.quote(f"results_dir={results_dir}")
        decision = dataclasses.replace(decision, finals_command=f"{decision.finals_command} {place}")
    shipped = None if out is None else _ship(out, decision, pool, store, promised, rendered, allow_random_weights)
    if as_json:
        print(json.dumps(decision_json(decision), indent=1))
        return
    print_decision(decision, terminal())
    if shipped is not None:
        terminal().print(shipped, soft_wrap=True, markup=False, highlight=False)


def _ship(
    out: Path,
    decision: "Decision",
    pool: "Pool",
    store: Store,
    promised: "Slo",
    rendered: Path | None,
    allow_random_weights: bool,
) -> str:
    """Write the bundle of what was chosen; what to say of it.

    Raises:
        ConfigError: If it must not be shipped, or cannot be.
        StoreError: If results cannot be read.
    """
    from pipeline.bundle import write_bundle
    from pipeline.bundle.headline import at_load
    from pipeline.bundle.split import read_split
    from pipeline.choose.decision import decision_json
    from pipeline.choose.production import check_production
    from pipeline.quality.record import latest_for, read_results
    from pipeline.resume import study_of

    check_production(decision, store, allow_random_weights=allow_random_weights)
    winner = decision.winner
    rows = [row for row in pool.rows if row.trial_id in winner.trial_ids]
    quality = latest_for(read_results(store.results_dir), winner.rendered_hash)
    study, deployment = (study_of(decision.trial), None) if rendered is None else read_split(rendered)
    write_bundle(
        out, study=study, deployment=deployment, trial=decision.trial, rows=rows, decision=decision_json(decision),
        quality=quality, slo=promised, number=at_load([row for row in rows if row.row_id in winner.row_ids]),
        allow_random_weights=allow_random_weights,
    )  # fmt: skip
    folder = shlex.quote(str(out))
    if quality is None:
        return f"written: {folder}; whether its answers hold was not checked: tpw quality candidate={folder} reference="
    return f"written: {folder}; quality check {quality.quality_id}: {quality.verdict}"


def named(store: Store, given: Sequence[str]) -> list[str]:
    """Ids of stored studies, by id or pattern; the latest if none is given.

    Raises:
        ConfigError: If one is unknown, or a pattern matches none.
    """
    stored, found = store.studies(), list[str]()
    for name in given or [chosen_study(store, None)]:
        matched = fnmatch.filter(stored, name)
        found += matched or [chosen_study(store, name)]
    return list(dict.fromkeys(found))


def conditions(where: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE as a mapping.

    Raises:
        ConfigError: If one is not of that form.
    """
    for text in where:
        if "=" not in text:
            raise ConfigError(f"--where {text}: write KEY=VALUE, e.g. --where weights=checkpoint")
    return dict(text.split("=", 1) for text in where)
