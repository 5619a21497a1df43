"""What one check found, and how a check that fails itself is a finding too."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import PipelineError


class State(StrEnum):
    """How well something is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        subject: What was looked at, in one to three words.
        state: A problem keeps the study from running or its rows from being valid; a warning does not.
        text: What was found.
        fix: What to do; None where there is nothing to do.
    """

    subject: str
    state: State
    text: str
    fix: str | None = None


Check = Callable[[], Finding | Iterable[Finding]]


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(subject=subject, state=State.OK, text=text)


def warning(subject: str, text: str, fix: str) -> Finding:
    """It runs, but rows may be worse for it."""
    return Finding(subject=subject, state=State.WARNING, text=text, fix=fix)


def problem(subject: str, text: str, fix: str | None) -> Finding:
    """It does not run, or its rows are not valid."""
    return Finding(subject=subject, state=State.PROBLEM, text=text, fix=fix)


def not_applicable(subject: str, text: str) -> Finding:
    """It does not matter here, or cannot be told; the text says why."""
    return Finding(subject=subject, state=State.NOT_APPLICABLE, text=text)


def refused(subject: str, error: PipelineError) -> Finding:
    """An error of ours as a problem: after the first semicolon its message says what to do."""
    message = re.sub(r"^meter=\w+: ", "", str(error))
    text, _, fix = message.partition("; ")
    return problem(subject, text, fix or None)


def findings(subject: str, check: Check) -> Iterator[Finding]:
    """What a check found; its own failure under this subject."""
    try:
        found = check()
        yield from (found,) if isinstance(found, Finding) else found
    except PipelineError as error:
        yield refused(subject, error)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other checks go on
        yield problem(subject, f"this check failed: {type(error).__name__}: {error}", "report it, with the line above")
