import math

import pytest

from pipeline.choose.owed import CUSTOM, owed
from pipeline.errors import ConfigError
from tests.builders import make_slo


def test_the_studies_slo_counts_unless_another_is_asked_for() -> None:
    own = make_slo(ttft_p99_s=1.0)
    assert owed([own, own], None, {"ttft_p99_s": None}) == own
    assert owed([own], "interactive", {}).bounds == {"ttft_p99_s": 0.45, "tpot_p99_s": 0.04}
    mixed = owed([own], "interactive", {"ttft_p99_s": 0.2, "output_tokens_per_s_per_user_min": 50.0})
    assert (mixed.name, mixed.bounds) == (CUSTOM, {"ttft_p99_s": 0.2, "tpot_p99_s": 0.04, "tpot_p50_s": 0.02})
    assert owed([own], None, {"e2e_p50_s": 5.0}).bounds == {"e2e_p50_s": 5.0}


def test_studies_that_owe_different_things_need_a_word() -> None:
    with pytest.raises(ConfigError, match="owe different latencies"):
        owed([make_slo(), make_slo(ttft_p99_s=1.0)], None, {})


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_is_a_number_above_0(value: float) -> None:
    with pytest.raises(ConfigError, match=r"slo\.ttft_p99_s="):
        owed([make_slo()], None, {"ttft_p99_s": value})


def test_an_unknown_choice_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="allowed: batch, interactive, none"):
        owed([make_slo()], "fast", {})
