"""The cross-check against AIPerf: what AIPerf stores is read as it is meant, and both views go through one window."""

from typing import Any

import numpy as np
import pytest

from bench.aiperf import NO_TEXT, Request, from_aiperf
from bench.crosscheck import compare, figures, from_record
from tests.builders import make_request


def stored(**changes: Any) -> dict[str, Any]:
    """A line of AIPerf's profile_export.jsonl: 9 tokens in 3 chunks with text, sent at 100 s."""
    return {
        "metadata": {"conversation_id": "7", "request_start_ns": 100_000_000_000, "request_ack_ns": 100_100_000_000,
                     "request_end_ns": 101_000_000_000, "was_cancelled": False},
        "metrics": {"time_to_first_token": {"value": 200.0, "unit": "ms"},
                    "inter_chunk_latency": {"value": [300.0, 500.0], "unit": "ms"},
                    "output_sequence_length": {"value": 9, "unit": "tokens"}},
    } | changes  # fmt: skip


def test_aiperf_times_are_after_sending_and_its_chunks_share_the_tokens() -> None:
    found = from_aiperf(stored(), {})
    assert found.sent_s == 100.0
    assert found.event_t_s.tolist() == pytest.approx([100.2, 100.5, 101.0])
    assert found.event_tokens.tolist() == [3.0, 3.0, 3.0]
    assert found.is_completed


def test_a_response_without_text_still_brought_its_tokens() -> None:
    found = from_aiperf(stored(metrics={}, error={"message": f"Invalid: {NO_TEXT} were received"}), {"7": 10})
    assert (found.event_t_s[0], found.event_t_s[-1]) == pytest.approx((100.1, 101.0))
    assert found.event_tokens.sum() == 10


@pytest.mark.parametrize(
    "changes", [{"error": {"message": "503"}}, {"metadata": stored()["metadata"] | {"was_cancelled": True}}]
)
def test_any_other_failure_ends_the_comparison(changes: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match="a request of AIPerf failed"):
        from_aiperf(stored(**changes), {})


def test_our_record_has_the_same_form() -> None:
    found = from_record(make_request(1.0, [(1.2, 3), (1.5, 6), (2.0, 9)]), 99.0)
    theirs = from_aiperf(stored(), {})
    assert found.sent_s == theirs.sent_s
    assert found.event_t_s.tolist() == pytest.approx(theirs.event_t_s.tolist())
    assert found.event_tokens.tolist() == theirs.event_tokens.tolist()
    assert found.is_completed
    assert not from_record(make_request(1.0, [(1.2, 3), (1.5, 6)], ended=False), 99.0).is_completed
    assert from_record(make_request(1.0), 99.0).event_tokens.sum() == 0


def test_only_what_arrives_in_the_window_counts() -> None:
    """Two slots, one token every 0.1 s in each, 20 tokens a request, TTFT 0.1 s."""
    requests = [
        Request(sent_s=t, event_t_s=t + 0.1 * np.arange(1, 21), event_tokens=np.ones(20), is_completed=True)
        for start in (0.05, 1.05) for t in start + 2.0 * np.arange(40)
    ]  # fmt: skip
    found = figures(requests, 10.0, 50.0)
    assert found["output_tokens_per_s_in_flight"] == pytest.approx(10.0)
    assert found["mean_in_flight"] == pytest.approx(2.0)
    assert (found["ttft_p50_s"], found["itl_p50_s"]) == pytest.approx((0.1, 0.1))
    assert found["requests_per_s"] == 1.0
    with pytest.raises(SystemExit, match="raise --window-s"):
        figures(requests, 10.0, 5.0)


def test_clients_agree_within_the_tolerance_of_each_figure() -> None:
    ours = {"output_tokens_per_s_in_flight": 102.0, "itl_p50_s": 0.0104, "ttft_p50_s": 0.105}
    theirs = {"output_tokens_per_s_in_flight": 100.0, "itl_p50_s": 0.01, "ttft_p50_s": 0.1}
    found = compare([(ours, theirs), (ours, theirs)])
    assert {name: values["agrees"] for name, values in found.items()} == {
        "output_tokens_per_s_in_flight": True, "itl_p50_s": False, "ttft_p50_s": True,
    }  # fmt: skip
    assert found["ttft_p50_s"]["ratio"] == pytest.approx(1.05)
    assert found["ttft_p50_s"]["ratio_sd_of_a_run"] == pytest.approx(0)
    assert compare([(ours, theirs)])["itl_p50_s"]["ratio_sd_of_a_run"] is None
