"""Options by which a command is told what is owed to the users, and which rows it is about."""

from typing import Annotated, Literal

import typer

Where = Annotated[list[str] | None, typer.Option("--where", help="KEY=VALUE: only rows of this condition; repeatable")]
SloName = Annotated[str | None, typer.Option(help="choice of conf/slo; else that of the studies")]
TtftBound = Annotated[float | None, typer.Option(help="upper bound on time to first token")]
TpotBound = Annotated[float | None, typer.Option(help="upper bound on time per output token")]
E2eBound = Annotated[float | None, typer.Option(help="upper bound on request sent to last token")]
Percentile = Annotated[Literal["p50", "p99"], typer.Option(help="of these bounds")]


def bounds_of(
    percentile: str, ttft_s: float | None, tpot_s: float | None, e2e_s: float | None
) -> dict[str, float | None]:
    """Bounds by the keys of conf/slo; None where none is given."""
    return {f"ttft_{percentile}_s": ttft_s, f"tpot_{percentile}_s": tpot_s, f"e2e_{percentile}_s": e2e_s}
