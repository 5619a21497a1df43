import json
from pathlib import Path

import pytest

from tests.cli.command import tpw
from tests.track.histories import Builder, Planted, two_years

RESULTS = Path(__file__).parents[2] / "results"
CARDS = ("h100-repeat-*", "--before", "gpu_uuids=GPU-3a4bf3", "--after", "gpu_uuids=GPU-dcc91e", "--slo", "none")


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("years")
    two_years(Planted(levels={10: 1.06, 18: 0.94}, driver=(28, 0.96), retuned=(24, 1.1)), 0).store(folder)
    return folder


def test_recorded_rows_of_two_cards_are_compared_with_the_interval_that_cards_need() -> None:
    said = tpw("track", *CARDS, "--results", RESULTS)
    assert (said.status, said.err) == (0, "")
    for part in (
        "evidence=measured, boundary=gpu, weights=random", "before: gpu_uuids=GPU-3a4bf3", "frozen config, mean",
        "across cards) tokens/J", "3 sets of cards, 2 df: SD 2.9 %",
        "mind: the sides ran on different cards, or unknown ones",
        "mind: weights=random", "slo=none", "have one side only and are not shown",
    ):  # fmt: skip
        assert part in said.out, part


def test_a_regression_ends_a_job_and_names_where_it_came_from(years: Path) -> None:
    said = tpw("track", "--fail-on-regression", "3%", "--results", years)
    assert (said.status, said.err) == (1, "")
    (line,) = [line for line in said.out.splitlines() if line.startswith("REGRESSION") and "0.18.0" in line]
    for part in (
        "all cases together -",
        "last good vllm 0.17.0",
        "first bad vllm 0.18.0",
        "differs: engine_version, image",
    ):
        assert part in line, part
    assert "probability of 5 %" in said.out
    fine = tpw("track", "--fail-on-regression", "20%", "--results", years)
    assert (fine.status, "no regression of 20 % found in 7 series" in fine.out) == (0, True)


def test_json_is_what_was_found_and_nothing_else(years: Path) -> None:
    said = tpw("track", "--json", "--fail-on-regression", "3%", "--results", years)
    found = json.loads(said.out)
    assert (said.status, found["schema_version"], found["false_alarm_rate"]) == (1, 1, 0.05)
    (group,) = found["groups"]
    assert group["conditions"]["gpu_name"] == "NVIDIA H100"
    assert {change["first_bad"]["image"][:12] for each in group["series"] for change in each["changes"]} == {
        "vllm@sha256:"
    }
    assert [factor["factor"] for factor in group["attribution"]["factors"]] == ["driver", "engine", "config and load"]
    assert group["attribution"]["factors"][0]["gain"] is None
    assert found["regressions"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--fail-on-regression", "3"], ["--fail-on-regression=3", "write e.g. 3%"]),
        (["--before", "0.99"], ["--before engine_version=0.99: unknown version; there are: ", "0.24.0"]),
        (["--before", "plam=x"], ["unknown key (did you mean 'plan'?)"]),
        (["--before", "evidence=measured"], ["--before evidence=measured", "never compared"]),
        (["--before", "0.24.0", "--before", "0.25.0"], ["engine_version=0.24.0 is given too"]),
        (["--where", "plan"], ["write KEY=VALUE"]),
        (["--slo", "fast"], ["slo=fast: unknown"]),
        (["h300-*"], ["h300-*"]),
        (["--boundary", "facility"], ["--boundary", "add --against"]),
        (["--allow-random-weights"], ["--allow-random-weights", "add --against"]),
        (["h100-llama-3.1-8b"], ["one release only (vllm 0.24.0, driver 580.159.04)"]),
        (
            [
                "h?00-llama-3.1-8b*",
                "--where",
                "workload=chat_1k_1k",
                "--before",
                "hardware=h100",
                "--after",
                "hardware=h200",
            ],
            ["nothing in common", "they differ in plan: quick, quick-bd05; "],
        ),
    ],
)
def test_bad_input_is_one_line(args: list[str], parts: list[str]) -> None:
    tpw("track", *args, "--results", RESULTS).assert_refused(2, *parts)


def test_rows_that_are_all_left_out_are_an_error(tmp_path: Path) -> None:
    Builder().start("1.0", {8: 1.0}, started_utc="2020-01-01T00:00:00+00:00").store(tmp_path)
    tpw("track", "--results", tmp_path).assert_refused(2, "no valid row", "clocks out of order")
    tpw("track", "--results", tmp_path / "nowhere").assert_refused(2, "holds no study")


def test_rows_are_placed_beside_published_points_instead() -> None:
    place = ("track", "h100-repeat-llama-3.1-8b-dcc91ecf", "--against", "mlenergy", "--results", RESULTS)
    said = tpw(*place, "--allow-random-weights", "--tolerance", "3.2")
    assert (said.status, said.err) == (0, "")
    assert "weights=random" in said.out
    assert "mlenergy" in said.out
    tpw(*place, "--before", "0.24.0").assert_refused(2, "--against=mlenergy", "leave out --before")
