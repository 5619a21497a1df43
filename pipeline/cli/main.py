"""`tpw`: one file per command; this one joins them and turns errors into one line and an exit status."""

import sys

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.cli.calibrate import calibrate_
from pipeline.cli.choose import choose
from pipeline.cli.doctor import doctor
from pipeline.cli.export import export
from pipeline.cli.import_ import import_
from pipeline.cli.measure import measure
from pipeline.cli.plan import plan
from pipeline.cli.quality import quality
from pipeline.cli.render import render
from pipeline.cli.repeat import repeatability
from pipeline.cli.show import show
from pipeline.cli.suite import suite
from pipeline.cli.sweep import sweep
from pipeline.cli.track import track
from pipeline.cli.verify import verify
from pipeline.compose import groups
from pipeline.errors import PipelineError

EPILOG = "GROUPS, one choice each (group=choice), any key can be overridden (plan.window_s=30):\n\n" + "\n\n".join(
    f"{name}: {', '.join(choices)}" for name, choices in groups().items()
)

app = typer.Typer(
    name="tpw",
    help="Search LLM serving configurations, scored by measured tokens per joule.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Help texts are given here: the functions' docstrings also say what they raise.
app.command(help="Search engine configurations; every trial is measured, rows land in results/.", epilog=EPILOG)(sweep)
app.command(help="Say what a sweep would do, and cost, before it starts anything.", epilog=EPILOG)(plan)
app.command(
    help="Measure one configuration at each load: of an engine started here, or of a server that runs (url=, gpus=).",
    epilog=EPILOG,
)(measure)
app.command(
    help="Start one configuration afresh, again and again: how far do windows, starts and visits agree?", epilog=EPILOG
)(repeatability)
app.command(help="Say what this machine lacks for a study, and what to do; changes nothing.", epilog=EPILOG)(doctor)
app.command(
    help="Write engine folders (files, command line, script) of a study's configs; starts nothing.", epilog=EPILOG
)(render)
app.command(help="Recompute stored rows, or a production bundle, from their evidence; fails where they differ.")(verify)
app.command(help="Compare a config's answers with a reference's; fails unless they pass.", epilog=EPILOG)(quality)
app.command(
    name="calibrate", help="Fit the constants of the model to measured rows; says how far off it is, before and after."
)(calibrate_)
app.command(name="import", help="Make rows of other tools' results: never ranked with rows measured here.")(import_)
app.command(help="Choose the config to serve with, under an SLO and for a demand, from stored rows; measures nothing.")(
    choose
)
app.command(help="Say what newer software, other hardware or a new config gained, and where it was lost; from rows.")(
    track
)
app.add_typer(suite, name="suite", help="A few cases to measure again on every release: pick them, and run them.")
app.command(help="Write a study for another tool: optuna, a journal for optuna-dashboard; inferencex, its points.")(
    export
)
app.command(help="Print the best configurations of a study again, from its rows alone.")(show)


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(__version__)


def main() -> None:
    """Run the command line; a PipelineError is one line on stderr and its exit code, Ctrl-C is 130."""
    try:
        status = app(standalone_mode=False)  # what an Exit was raised with, or None
    except PipelineError as error:
        print(f"tpw: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            said = error.format_message() or "no command given"  # the help is printed already
            print(f"tpw: error: {said}; see tpw --help", file=sys.stderr)
            sys.exit(2)
        raise
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
