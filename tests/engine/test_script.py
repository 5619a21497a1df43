"""Command lines as shell text: whatever a word holds, the shell hands it on as it is."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.script import assignments, script, word, words

LITERAL = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00{}"), max_size=12)


def said(text: str, **env: str) -> list[str]:
    """What bash makes of a script that prints words, a NUL after each."""
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, check=True)  # noqa: S607
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.tuples(LITERAL, LITERAL), min_size=1, max_size=3), value=LITERAL.filter(bool))
def test_a_word_is_handed_on_as_it_is(parts: list[tuple[str, str]], value: str) -> None:
    argv = [f"{before}{{model}}{after}" for before, after in parts] + [before for before, _ in parts]
    expected = [text.replace("{model}", value) for text in argv]
    assert said(f"printf '%s\\0' {words(argv)}", MODEL=value) == expected


def test_programs_of_the_engine_are_called_by_name() -> None:
    assert words(["{bin}/trtllm-serve", "{bin}tool", "{model}"]) == 'trtllm-serve tool "${MODEL}"'
    assert word('{"json": 1}') == """'{"json": 1}'"""


def test_environment_is_sorted_and_quoted() -> None:
    assert assignments({"B": "x y", "A": "{engine_dir}/c"}) == ['A="${HERE}/c"', "B='x y'"]


def test_a_variable_has_its_value_here_unless_the_user_sets_another() -> None:
    text = script(f"printf '%s\\0' {words(['{model}', '{host}', '{port}', '{dir}'])}", [], {"model": "/my models/a'b"})
    body = text.replace("HERE=$(cd", "HERE=/here #$(cd")  # not a file here
    assert said(body) == ["/my models/a'b", "127.0.0.1", "8000", "/here"]
    assert said(body, MODEL="/x", SERVE_PORT="9", PORT="1", HOST="conda") == ["/x", "127.0.0.1", "9", "/here"]


def test_what_has_no_value_is_asked_for() -> None:
    text = script(f"printf '%s\\0' {words(['{model}'])}", ["one", "two"], {"model": None}, {"model": "a folder, `x`'s"})
    assert text.splitlines()[:3] == ["#!/usr/bin/env bash", "# one", "# two"]
    with pytest.raises(subprocess.CalledProcessError) as raised:
        said(text)
    assert "MODEL: a folder, `x`'s" in raised.value.stderr.decode()
    assert said(text, MODEL="/x") == ["/x"]


def test_only_what_is_used_is_set() -> None:
    assert "PYTHON" not in script("true", [], {"python": "/usr/bin/python3"})
    assert "PYTHON=" in script(words(["{python}"]), [], {"python": "/usr/bin/python3"})
