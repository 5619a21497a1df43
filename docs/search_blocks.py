"""The generated parts of search.md: the recorded grid, from its rows, and the benchmark, from what it printed last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.search_recorded import ANCHOR_STUDIES, STORE, STUDIES
from pipeline.cli.table import number
from pipeline.config_text import config_text, varying_keys
from pipeline.grouping import grouped
from pipeline.score import usable

BENCH = Path(__file__).parents[1] / "bench" / "data" / "search.json"
"""The last line of `make bench-search`, at its defaults."""


def grid_lines() -> list[list[str]]:
    """Tokens per joule of every config of the grid by load, as measured; the anchor once for each GPU."""
    rows = [row for name in (*STUDIES, *ANCHOR_STUDIES) for row in STORE.rows(name)]
    loads = sorted({row.load for row in rows})
    keys = varying_keys({row.config_json for row in rows})
    cards = {uuid: f"GPU {n}" for n, uuid in enumerate(dict.fromkeys(row.gpu_uuids[0] for row in rows))}
    lines = [["configuration", "on", *(f"{load:g} users" for load in loads)]]
    for (text, card), own in sorted(
        grouped(rows, lambda row: (config_text(row.config_json, keys), cards[row.gpu_uuids[0]])).items()
    ):
        cells = []
        for load in loads:
            here = [row for row in own if row.load == load]
            values = [number(row.output_tokens_per_joule) for row in usable(here) if row.output_tokens_per_joule]
            cells.append(", ".join(values) or ("rejected" if here else "-"))
        lines.append([text, card, *cells])
    return lines


def bench_lines(kind: str) -> list[list[str]]:
    """Regret of every method on the `recorded` grid or the `surrogate` truths, and what it takes to come near."""
    methods: Mapping[str, Mapping[str, Any]] = json.loads(BENCH.read_text("utf-8"))[kind]["methods"]
    first = next(iter(methods.values()))
    checkpoints = [key for key in first if key.startswith("regret_") and not key.endswith("_p90")]
    head = [f"after {key.removeprefix('regret_')}" for key in checkpoints]
    lines = [["regret: median (90th percentile)", *head, "starts to 95 %", "GPU-hours to 95 %"]]
    for name, found in methods.items():
        cells = [f"{100 * found[key]:.1f} % ({100 * found[f'{key}_p90']:.0f} %)" for key in checkpoints]
        starts, spent_s = found["starts_to_near"], found["gpu_s_to_near"]
        lines.append([name, *cells, f"{starts:g}" if starts else "-", f"{spent_s / 3600:.2f}" if spent_s else "-"])
    return lines
