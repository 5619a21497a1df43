"""`tpw`: one file per command; this one joins them and turns errors into one line and an exit status."""

import sys

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.cli.plan import plan
from pipeline.cli.show import show
from pipeline.cli.sweep import sweep
from pipeline.config import groups
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
app.command(epilog=EPILOG)(sweep)
app.command(epilog=EPILOG)(plan)
app.command()(show)


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
            print(f"tpw: error: {error.format_message()}; see tpw --help", file=sys.stderr)
            sys.exit(2)
        raise
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
