"""Run `tpw` in this process, as from a shell."""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from unittest.mock import patch

from pipeline.cli.main import main


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    def assert_refused(self, status: int, *parts: str) -> None:
        """It is one line on stderr that holds these parts."""
        assert (self.status, self.err.count("\n")) == (status, 1), self.err
        assert self.err.startswith("tpw: error: ")
        assert [part for part in parts if part not in self.err] == [], self.err


def tpw(*args: object) -> Said:
    """Run a command that starts nothing; one that does takes signals for itself and belongs into its own process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["tpw", *map(str, args)]
    terminal = patch.dict(os.environ, {"COLUMNS": "160"})  # the same here as where there is none
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patch.object(sys, "argv", argv), terminal:
        try:
            main()
        except SystemExit as ended:
            return Said(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("main returned")
