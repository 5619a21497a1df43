"""A check that fails is a finding."""

from collections.abc import Iterator

from pipeline.doctor.finding import Finding, State, findings, ok
from pipeline.errors import ConfigError, MeterError


def test_a_finding_or_several_come_as_they_are() -> None:
    one = ok("a", "fine")
    assert list(findings("a", lambda: one)) == [one]
    assert list(findings("a", lambda: (one, one))) == [one, one]


def test_an_error_of_ours_is_a_problem_and_says_what_to_do() -> None:
    def refuse() -> Finding:
        raise MeterError("meter=nvml: no driver; install it; or use a CPU")

    (found,) = findings("meter", refuse)
    assert found == Finding(subject="meter", state=State.PROBLEM, text="no driver", fix="install it; or use a CPU")


def test_an_error_without_advice_has_no_fix() -> None:
    def refuse() -> Finding:
        raise ConfigError("engine.port=1: taken")

    (found,) = findings("port", refuse)
    assert (found.text, found.fix) == ("engine.port=1: taken", None)


def test_what_was_found_before_a_crash_is_kept_and_the_crash_is_a_finding() -> None:
    def crash() -> Iterator[Finding]:
        yield ok("a", "fine")
        raise ZeroDivisionError("by zero")

    first, second = findings("b", crash)
    assert first.subject == "a"
    assert (second.subject, second.state) == ("b", State.PROBLEM)
    assert "ZeroDivisionError: by zero" in second.text
