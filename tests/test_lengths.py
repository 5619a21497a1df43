import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.lengths import Lengths, read_lengths

TOKENS = st.integers(1, 10**6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lengths")


def read(folder: Path, text: str) -> Lengths:
    path = folder / "lengths.csv"
    path.write_text(text, "utf-8", newline="")
    return read_lengths(path)


@given(pairs=st.lists(st.tuples(TOKENS, TOKENS), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
def test_pairs_come_back_in_order(folder: Path, pairs: list[tuple[int, int]], end: str) -> None:
    lengths = read(folder, end.join(["isl_tokens,osl_tokens", *(f"{isl},{osl}" for isl, osl in pairs)]) + end)
    assert lengths.pairs == tuple(pairs)
    assert lengths.at_s is None


def test_columns_may_come_in_any_order_among_others_with_blanks_and_a_byte_order_mark(folder: Path) -> None:
    lengths = read(folder, "\ufeffat_s, osl_tokens,user , isl_tokens\n0, 2,ann, 1\n0.5, 4,bob, 3\n0.5,6,,5\n")
    assert (lengths.pairs, lengths.at_s) == (((1, 2), (3, 4), (5, 6)), (0.0, 0.5, 0.5))


def test_hash_is_that_of_the_file(folder: Path) -> None:
    text = "isl_tokens,osl_tokens\n1,2\n"
    assert read(folder, text).sha256 == hashlib.sha256(text.encode()).hexdigest()


BAD = {
    "no column": ("isl_tokens\n1\n", "no column osl_tokens.*'isl_tokens'"),
    "nothing at all": ("", "no column isl_tokens"),
    "no lines": ("isl_tokens,osl_tokens\n", "no requests"),
    "zero": ("isl_tokens,osl_tokens\n1,2\n1,0\n", "line 3: osl_tokens='0'"),
    "negative": ("isl_tokens,osl_tokens\n-1,2\n", "line 2: isl_tokens='-1'"),
    "fraction": ("isl_tokens,osl_tokens\n1.5,2\n", "line 2: isl_tokens='1.5'"),
    "word": ("isl_tokens,osl_tokens\n1,two\n", "line 2: osl_tokens='two'"),
    "odd digits": ("isl_tokens,osl_tokens\n1,\u00b2\n", "line 2: osl_tokens="),
    "missing value": ("isl_tokens,osl_tokens\n1\n", "line 2: osl_tokens=''"),
    "line number after a quoted line end": ('x,isl_tokens,osl_tokens\n"a\nb",1,2\nc,1,x\n', "line 4: osl_tokens='x'"),
    "unfinished quotes": ('isl_tokens,osl_tokens\n"1,2\n', "cannot be read as CSV"),
    "times descend": ("isl_tokens,osl_tokens,at_s\n1,2,5\n1,2,4\n", "line 3: at_s=4 is before the line above"),
    "time is none": ("isl_tokens,osl_tokens,at_s\n1,2,soon\n", "line 2: at_s='soon'"),
    "time is missing": ("isl_tokens,osl_tokens,at_s\n1,2\n", "line 2: at_s=None"),
    "time is infinite": ("isl_tokens,osl_tokens,at_s\n1,2,inf\n", "line 2: at_s='inf'"),
    "time is before the start": ("isl_tokens,osl_tokens,at_s\n1,2,-1\n", "line 2: at_s='-1'"),
    "times are one moment": ("isl_tokens,osl_tokens,at_s\n1,2,3\n1,2,3\n", "spans no time"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_file_is_one_line_that_names_it(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read(folder, text)
    assert str(folder / "lengths.csv") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_file_that_is_no_text_or_not_there_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (folder / "binary", folder / "absent", folder):
        with pytest.raises(ConfigError, match="cannot be read") as raised:
            read_lengths(path)
        assert str(path) in str(raised.value)
