"""What a sweep shows while it runs, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from pipeline.cli.display import LiveDisplay, PlainDisplay
from pipeline.search.proposal import Proposal
from pipeline.space import build_space
from pipeline.vocabulary import Reason, RowStatus, TrialStatus
from tests.builders import MODELLED, make_row, make_study, make_trial

STUDY = make_study(*MODELLED)
CONFIG = build_space(STUDY).configs[0]


@pytest.mark.parametrize("kind", [LiveDisplay, PlainDisplay])
def test_a_whole_sweep_is_shown(kind: type[LiveDisplay | PlainDisplay]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=kind is LiveDisplay, width=160)
    with kind(console, 12, [make_trial(score=1.5)]) as display:
        for number, status in enumerate((TrialStatus.OK, TrialStatus.OUT_OF_MEMORY)):
            display.trial_began(number, number, Proposal(config=CONFIG, proposed_by="prior"))
            display.phase("starting engine")
            display.row(make_row(output_tokens_per_joule=12.34, concurrency=64))
            display.row(make_row(status=RowStatus.INVALID, reasons=(Reason.NOT_STEADY,), ttft_p99_s=None))
            reasons = () if status is TrialStatus.OK else ("CUDA out of memory",)
            display.trial_ended(make_trial(number=number, status=status, score=12.34, reasons=reasons))
            if isinstance(display, LiveDisplay):
                console.print(display._render())
    shown = stream.getvalue()
    assert "out_of_memory: CUDA out of memory" in shown
    assert "12.3 tok/J" in shown
    assert "not_steady" in shown
    assert "prior" in shown


def test_the_panel_knows_the_best_of_an_earlier_run() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    display = LiveDisplay(console, 12, [make_trial(score=1.5), make_trial(score=7.25), make_trial(score=None)])
    with console.capture() as shown:
        console.print(display._render())
    assert "best so far: 7.25 tok/J" in shown.get()
