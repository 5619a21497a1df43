"""What the terminal says of a production bundle: is it what was measured, and does it still give that number?"""

from pathlib import Path

from rich.console import Console

from pipeline.record import Row
from pipeline.store import Store


class _Phases:
    """Progress of one start, a line each."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Say it."""
        self._console.print(text, style="yellow", soft_wrap=True, highlight=False)

    def phase(self, text: str) -> None:
        """Say it."""
        self._console.print(f"  {text}", style="dim", soft_wrap=True, highlight=False)

    def row(self, row: Row) -> None:
        """Say where it is."""
        self.phase(f"row {row.row_id}: {row.status}{', ' + ', '.join(row.reasons) if row.reasons else ''}")


def say_verified(console: Console, folder: Path, store: Store) -> bool:
    """Verify a bundle and say what came of it; whether nothing differs.

    Raises:
        ConfigError: If it is no bundle.
        StoreError: If stored rows cannot be read.
    """
    from pipeline.bundle.verify import verify_bundle

    found = verify_bundle(folder, store)
    for text, style in (
        *((line, "") for line in found.agreed),
        *((line, "yellow") for line in found.not_compared),
        *((line, "bold red") for line in found.differences),
    ):
        console.print(f"{folder}: {text}", style=style, soft_wrap=True, highlight=False)
    return not found.differences


def say_measured_again(
    console: Console, folder: Path, store: Store, engines_dir: Path, python: str | None, model: str | None
) -> bool:
    """Start a bundle again, measure its load, and say how it compares; whether it agrees.

    Raises:
        PipelineError: If it cannot be started or metered here.
    """
    from pipeline.bundle.live import measure_again

    found = measure_again(folder, store, engines_dir, _Phases(console), python=python, model=model)
    if found.measured is not None:
        span = f" (95 % {found.ratio_low:.4g} to {found.ratio_high:.4g})" if found.ratio_low is not None else ""
        console.print(
            f"{folder}: measured {found.measured:.4g} tok/J, promised {found.promised:.4g}: ratio "
            f"{found.measured / found.promised:.4g}{span}; its row is in study {found.study_id}",
            soft_wrap=True,
            highlight=False,
        )
    for text, style in (
        *((line, "yellow") for line in found.notes),
        *((line, "bold red") for line in found.differences),
    ):
        console.print(f"{folder}: {text}", style=style, soft_wrap=True, highlight=False)
    return not found.differences
