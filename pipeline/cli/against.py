"""Our rows beside published points: the tables, and what was refused."""

import json
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.against.public import Public, public
from pipeline.against.side_by_side import FIGURES, Asked, Placed, Refused, precision, series_text, side_by_side
from pipeline.cli.table import number
from pipeline.config_text import label, shared_text
from pipeline.errors import ConfigError
from pipeline.former_names import present_name
from pipeline.grouping import grouped
from pipeline.importers import mlenergy
from pipeline.store import Store
from pipeline.vocabulary import Boundary

COLUMNS = (
    "config",
    "load",
    "n",
    "tok/s/user",
    "tok/J",
    "public",
    "ratio",
    "tok/s/GPU",
    "W/GPU",
    "public series",
    "loads",
)

CAPTION = (
    "n: windows of ours; ratio: ours / public tok/J; tok/s/GPU and W/GPU: ratios likewise; loads: of the public points "
    "interpolated between. The public side gives no interval, and cards of one type differ by several per cent"
)

COVERS = {
    Boundary.GPU: "GPU boards, measured on both sides",
    Boundary.FACILITY: "the facility, provisioned kW per GPU of conf/hardware on both sides: a model",
}


def against(
    console: Console, store: Store, tool: str, studies: Sequence[str], asked: Asked, *, as_json: bool = False
) -> None:
    """Place the rows of studies beside a tool's published points, and print what stands where, and what does not.

    Args:
        console: Where to print.
        store: Where ours and imported rows are.
        tool: inferencex or mlenergy.
        studies: Ids of ours.
        asked: How near a case has to be.
        as_json: Print JSON.

    Raises:
        ConfigError: If there are no published points, or none of our rows can be placed.
        StoreError: If rows cannot be read.
    """
    if not 0 <= asked.tolerance < float("inf"):
        raise ConfigError(f"tolerance={asked.tolerance:g}: of lengths; write a number from 0, e.g. 0.25")
    every = [row for study in studies for row in store.rows(study)]
    ours = list({row.row_id: row for row in every}.values())  # merged folders may hold copies
    points = public(store, tool, {present_name(row.model) for row in ours})
    placed, refused = side_by_side(ours, points, asked)
    if as_json:
        print(json.dumps(_json(points, placed, refused), indent=1))
    else:
        _print(console, points, placed, refused)
    if not placed:
        raise ConfigError(
            f"against {tool}: none of {len(refused)} rows has a public counterpart, for the reasons above"
        )


def _print(console: Console, points: Public, placed: Sequence[Placed], refused: Sequence[Refused]) -> None:
    for table in _tables(placed, points):
        console.print(table)
    counts = Counter(each.reason for each in refused)
    for reason, count in counts.most_common():
        first = next(each.row.row_id for each in refused if each.reason == reason)
        more = f" and {count - 1} more" if count > 1 else ""
        console.print(f"refused, row {first}{more}: {reason}", soft_wrap=True, highlight=False, markup=False)


def _tables(placed: Sequence[Placed], points: Public) -> list[Table]:
    """A table for each kind of row of ours."""

    def kind(each: Placed) -> tuple[object, ...]:
        row = each.rows[0]
        own = (row.model, precision(row), row.hardware, row.workload, row.isl_tokens, row.osl_tokens, row.weights)
        return (*own, row.engine, row.engine_version, row.plan, each.boundary)

    tables = []
    for group in grouped(placed, kind).values():
        title = _title(group, points)
        table = Table(title=title, title_justify="left", title_style="bold", caption=CAPTION, caption_justify="left")
        for name in COLUMNS:
            is_text = name in {"config", "public series", "loads"}
            table.add_column(name, justify="left" if is_text else "right", overflow="fold")
        for each in group:
            ours, ratios = each.rows[0], each.ratios
            table.add_row(
                label(ours.config_json, _configs(group)),
                ours.load_text,
                str(len(each.rows)),
                number(each.tokens_per_s_per_user),
                number(each.ours[FIGURES[0]]),
                number(each.theirs[FIGURES[0]]),
                *(f"{ratios[name]:.2f}" for name in FIGURES),
                series_text(each.neighbours[0]),
                " - ".join(row.load_text for row in each.neighbours),
            )
        tables.append(table)
    return tables


def _configs(group: Sequence[Placed]) -> frozenset[str]:
    return frozenset(each.rows[0].config_json for each in group)


def _title(group: Sequence[Placed], points: Public) -> str:
    """What all lines of a table share, on both sides."""
    ours, boundary = group[0].rows[0], group[0].boundary
    theirs = [row for each in group for row in each.neighbours]
    isl, osl = (_span([getattr(row, name) for row in theirs]) for name in ("isl_tokens", "osl_tokens"))
    declared = " (declared here, not published)" if points.tool == mlenergy.TOOL else ""
    version = f" {ours.engine_version}" if ours.engine_version else ""
    return (
        f"{ours.model} {precision(ours)} on {ours.hardware}; ours: {ours.engine}{version}, ISL/OSL {ours.isl_tokens}/"
        f"{ours.osl_tokens}, weights={ours.weights}, plan={ours.plan}, {shared_text(_configs(group))}; public: "
        f"{points.tool}, {points.source}, ISL {isl}{declared}, OSL {osl}; "
        f"boundary={boundary}: {COVERS[boundary]}"
    )


def _span(lengths: Sequence[int]) -> str:
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f"{low}-{high}"


def _json(points: Public, placed: Sequence[Placed], refused: Sequence[Refused]) -> dict[str, object]:
    """The same for programs; absent is null."""
    return {
        "tool": points.tool,
        "source": points.source,
        "placed": [
            {
                "row_ids": [row.row_id for row in each.rows],
                "study_id": each.rows[0].study_id,
                "load": each.rows[0].load_text,
                "weights": each.rows[0].weights,
                "boundary": each.boundary,
                "output_tokens_per_s_per_user": each.tokens_per_s_per_user,
                "ours": each.ours,
                "public": each.theirs,
                "ratios": each.ratios,
                "public_series": series_text(each.neighbours[0]),
                "public_row_ids": [row.row_id for row in each.neighbours],
            }
            for each in placed
        ],
        "refused": [
            {"row_id": each.row.row_id, "study_id": each.row.study_id, "reason": each.reason} for each in refused
        ],
    }
