"""Progress of a sweep: one live panel on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline.cli.table import number, seconds
from pipeline.config_text import config_text
from pipeline.engine_config import canonical_json
from pipeline.record import Row, Trial
from pipeline.search.proposal import Proposal


class PlainDisplay:
    """A line per trial, row and result; satisfies SweepProgress."""

    def __init__(self, console: Console, num_trials: int, trials: Sequence[Trial]) -> None:  # noqa: ARG002  # as the other
        """Remember where to print, and how many trials to expect."""
        self._console = console
        self._num_trials = num_trials

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to clear."""

    def note(self, text: str) -> None:
        """Say it."""
        self._print(text)

    def trial_began(self, number: int, num_done: int, proposal: Proposal) -> None:
        """Say which config comes now."""
        self._print(trial_line(number, num_done, proposal, self._num_trials))

    def phase(self, text: str) -> None:
        """Phases are too many lines for a log."""

    def row(self, row: Row) -> None:
        """Say what was measured."""
        self._print(f"  {row_line(row)}")

    def trial_ended(self, trial: Trial) -> None:
        """Say how it ended."""
        self._print(f"  {end_line(trial)}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


class LiveDisplay:
    """What runs now, the best so far and the time left, drawn in place; finished trials scroll away above it."""

    def __init__(self, console: Console, num_trials: int, trials: Sequence[Trial]) -> None:
        """Prepare a panel that knows how many trials to expect, and the best of the stored ones."""
        self._console = console
        self._num_trials = num_trials
        self._trial = self._phase = self._row = ""
        self._phase_began = self._trial_began = time.monotonic()
        self._best = max(trials, key=lambda trial: trial.score or 0.0, default=None)
        self._num_done = 0
        self._durations_s: list[float] = []
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop drawing and clear the panel."""
        self._live.stop()

    def note(self, text: str) -> None:
        """Let it scroll away above the panel."""
        self._console.print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)

    def trial_began(self, number: int, num_done: int, proposal: Proposal) -> None:
        """Show which config comes now."""
        self._trial = trial_line(number, num_done, proposal, self._num_trials)
        self._trial_began, self._num_done, self._row = time.monotonic(), num_done, ""

    def phase(self, text: str) -> None:
        """Show the phase."""
        self._phase, self._phase_began = text, time.monotonic()

    def row(self, row: Row) -> None:
        """Show the last row."""
        self._row = row_line(row)

    def trial_ended(self, trial: Trial) -> None:
        """Let the finished trial scroll away; keep the best."""
        self._durations_s.append(time.monotonic() - self._trial_began)
        self._num_done += 1
        if trial.score is not None and (self._best is None or trial.score > (self._best.score or 0.0)):
            self._best = trial
        self._console.print(
            f"trial {trial.number}: {end_line(trial)}  {config_text(trial.config_json)}", highlight=False
        )

    def _render(self) -> Group:
        lines = [
            Text(self._trial, style="bold"),
            Text(f"  {self._phase}  {time.monotonic() - self._phase_began:.0f} s"),
            Text(f"  last row: {self._row or '-'}"),
        ]
        if self._best is not None and self._best.score is not None:
            best = f"  best so far: {number(self._best.score)} tok/J  {config_text(self._best.config_json)}"
            lines.append(Text(best, style="green"))
        lines.append(Text(f"  {self._time_left()}", style="dim"))
        return Group(*lines)

    def _time_left(self) -> str:
        if not self._durations_s:
            return "time left: known after the first trial"
        mean_s = sum(self._durations_s) / len(self._durations_s)
        left_s = mean_s * (self._num_trials - self._num_done) - (time.monotonic() - self._trial_began)
        return f"time left: about {max(0.0, left_s) / 60:.1f} min  (Ctrl-C stops; the same command resumes)"


def trial_line(trial_number: int, num_done: int, proposal: Proposal, num_trials: int) -> str:
    """Which config comes now, by whom, and how far the budget is."""
    config = config_text(canonical_json(proposal.config.requested()))
    return f"trial {trial_number} ({num_done + 1}/{num_trials}, {proposal.proposed_by}): {config}"


def row_line(row: Row) -> str:
    """One row in one line."""
    verdict = f"{row.evidence}, {row.status}" if row.reasons else str(row.evidence)
    flags = " ".join(["", *row.reasons, *row.warnings])
    return (
        f"load {row.load_text}: {number(row.output_tokens_per_joule)} tok/J, {number(row.output_tokens_per_s)} tok/s, "
        f"{number(row.output_tokens_per_s_per_user)} tok/s/user, TTFT p99 {seconds(row.ttft_p99_s)}, "
        f"{number(row.power_w)} W [{verdict}{flags}]"
    )


def end_line(trial: Trial) -> str:
    """How a trial ended."""
    if trial.reasons:
        return f"{trial.status}: {'; '.join(trial.reasons)}"
    return f"score {number(trial.score)} tok/J in {trial.total_s:.0f} s"
