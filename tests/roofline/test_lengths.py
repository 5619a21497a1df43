import dataclasses
import hashlib
import random
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.roofline.lengths import MeanLengths
from pipeline.workload import Workload
from tests.roofline import facts


def of_file(path: Path, text: str, arrival: Literal["closed", "schedule"] = "closed") -> Workload:
    path.write_text(text, "utf-8")
    return dataclasses.replace(
        facts.workload(), arrival=arrival, lengths_file=str(path),
        lengths_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip


def test_uniform_lengths_have_the_means_of_many_draws() -> None:
    load, chooser = facts.workload(2000, 1000, 0.2), random.Random(1)  # noqa: S311  # no secret
    drawn = [(chooser.uniform(400, 2000), chooser.uniform(200, 1000)) for _ in range(200_000)]
    found, output = MeanLengths.of(load), sum(osl for _, osl in drawn)
    assert found.isl_tokens == pytest.approx(sum(isl for isl, _ in drawn) / len(drawn), rel=0.01)
    assert found.osl_tokens == pytest.approx(output / len(drawn), rel=0.01)
    assert found.context_tokens == pytest.approx(sum(osl * (isl + osl / 2) for isl, osl in drawn) / output, rel=0.01)
    prompt = sum(isl for isl, _ in drawn)
    assert found.prompt_of_token_tokens == pytest.approx(sum(isl**2 for isl, _ in drawn) / prompt, rel=0.01)


@given(st.integers(1, 10**5), st.integers(2, 10**4))
def test_equal_lengths_are_their_own_means(isl: int, osl: int) -> None:
    found, plain = MeanLengths.of(facts.workload(isl, osl, 1.0)), MeanLengths.equal(isl, osl)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(plain))
    assert found.context_tokens == isl + osl / 2


def test_a_files_long_requests_are_met_more_often(tmp_path: Path) -> None:
    found = MeanLengths.of(of_file(tmp_path / "l.csv", "isl_tokens,osl_tokens\n100,10\n1000,90\n"))
    assert (found.isl_tokens, found.osl_tokens, found.request_rate_per_s) == (550, 50, None)
    assert found.context_tokens == pytest.approx((10 * 105 + 90 * 1045) / 100)
    assert found.prompt_of_token_tokens == pytest.approx((100**2 + 1000**2) / 1100)


def test_a_schedule_has_a_rate(tmp_path: Path) -> None:
    text = "isl_tokens,osl_tokens,at_s\n100,10,0\n100,10,1\n100,10,4\n"
    assert MeanLengths.of(of_file(tmp_path / "l.csv", text, "schedule")).request_rate_per_s == 0.5


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    load = of_file(tmp_path / "l.csv", "isl_tokens,osl_tokens\n100,10\n")
    (tmp_path / "l.csv").write_text("isl_tokens,osl_tokens\n200,10\n", "utf-8")
    with pytest.raises(ConfigError, match="has changed since this study was composed"):
        MeanLengths.of(load)
