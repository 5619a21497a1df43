"""The second model of the prior: how it is asked, what counts, and that its absence changes nothing."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.engine_config import EngineConfig, Precision
from pipeline.errors import ConfigError
from pipeline.roofline.aiconfigurator import disagreement
from pipeline.roofline.predict import Prediction
from pipeline.search.prior import judged, modelled_value, rank
from pipeline.search.second_opinion import NO_OPINION, ask, second_opinion
from pipeline.space import build_space
from tests.builders import make_study, with_search
from tests.search.prior_cases import config, prediction, study
from tests.search.stand_in_aiconfigurator import KV_CACHE_BATCH, TOKENS_PER_S_PER_REQUEST, TPOT_S, TTFT_S, make_stand_in

REAL = Path(__file__).parents[2] / ".venv-aiconfigurator" / "bin" / "python"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An interpreter that has the stand-in."""
    ask.cache_clear()
    monkeypatch.setenv("PYTHONPATH", str(make_stand_in(tmp_path)))
    yield sys.executable
    ask.cache_clear()


def test_without_the_key_nothing_is_asked_and_ranks_are_those_of_the_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    held = study()
    configs = build_space(held).configs

    def best(of: EngineConfig) -> float:
        return max(prediction(held, of, load).output_tokens_per_joule for load in held.workload.concurrency)

    ordered = sorted(configs, key=lambda of: (-best(of), len(of.knobs)))
    cells = [(of.precision, of.parallelism) for of in ordered]
    places = [(cells[:n].count(cell), n) for n, cell in enumerate(cells)]
    assert rank(held, configs) == [of for _, of in sorted(zip(places, ordered, strict=True), key=lambda item: item[0])]
    assert second_opinion(held, configs) is NO_OPINION
    assert [modelled_value(held, of) for of in configs] == [best(of) for of in configs]
    assert {one.theirs for of in configs for one in judged(held, of)} == {None}


def test_its_throughput_and_latency_count_with_our_watts(stand_in: str) -> None:
    held, of = study(python=stand_in), config(tp=2, ep=2)
    second = second_opinion(held, [of])
    assert (second.version, second.database) == ("0.12.0", "1.3.0rc20")
    for one in judged(held, of, second)[:-1]:
        load = one.point.concurrency
        assert load is not None
        assert one.counted == one.theirs
        assert one.counted.output_tokens_per_s == pytest.approx(TOKENS_PER_S_PER_REQUEST * load)
        assert (one.counted.ttft_s, one.counted.tpot_s) == (TTFT_S, TPOT_S)
        assert one.counted.output_tokens_per_joule == one.counted.output_tokens_per_s / one.counted.power_w
    heaviest = judged(held, of, second)[-1]
    assert heaviest.ours.running > KV_CACHE_BATCH
    assert heaviest.theirs == "the batch exceeds what its KV cache holds"
    assert heaviest.counted == heaviest.ours  # nothing to take a level from at this load


def test_what_it_has_no_answer_to_stands_at_its_level(stand_in: str) -> None:
    held = study(python=stand_in)
    answered, unanswered = config(tp=2, ep=2), config(tp=2)
    second = second_opinion(held, [answered, unanswered])
    for with_answer, without in zip(judged(held, answered, second), judged(held, unanswered, second), strict=True):
        assert isinstance(without.theirs, str)
        if isinstance(with_answer.theirs, Prediction):
            assert without.theirs.startswith("perf database error: MoE data missing")
            # The roofline knows no difference between these two, so neither may the order.
            assert without.counted.output_tokens_per_joule == pytest.approx(with_answer.counted.output_tokens_per_joule)


def test_it_orders_the_configs(stand_in: str) -> None:
    held = study(python=stand_in)
    configs = build_space(held).configs
    ranked = rank(held, configs)
    assert {of.config_hash for of in ranked} == {of.config_hash for of in configs}
    assert ranked != rank(study(), configs)


def test_one_process_answers_for_all_configs_and_once(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = study(python=stand_in)
    run = Mock(side_effect=subprocess.run)
    monkeypatch.setattr(subprocess, "run", run)
    configs = build_space(held).configs
    assert rank(held, configs) == rank(held, configs)
    run.assert_called_once()


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["hardware=h200"], ["no data of trtllm on h200_sxm", "leave the key out"]),
        (["model=gpt-oss-20b"], ["does not know openai/gpt-oss-20b", "Failed to download", "leave the key out"]),
    ],
)
def test_a_gpu_or_model_that_it_does_not_know_is_the_users_to_mend(
    stand_in: str, overrides: list[str], parts: list[str]
) -> None:
    held = study(*overrides, python=stand_in)
    with pytest.raises(ConfigError) as error:
        second_opinion(held, [config(tp=2)])
    assert [part for part in ["search.aiconfigurator_python=", *parts] if part not in str(error.value)] == []


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(make_stand_in(tmp_path, "0.11.0")))
    with pytest.raises(ConfigError, match=r"needs aiconfigurator 0\.12\.x: it has 0\.11\.0; install") as error:
        second_opinion(study(python=sys.executable), [config()])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (f'exec "{sys.executable}" -S -I "$@"', "needs aiconfigurator 0.12.x: No package metadata was found"),
        ("exit 3", "ended with status 3: it printed nothing"),
        ("echo 'Unknown option: -P' >&2; exit 2", "ended with status 2: Unknown option: -P"),
    ],
)
def test_an_interpreter_without_it_or_none_at_all_says_so_in_one_line(tmp_path: Path, body: str, part: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    with pytest.raises(ConfigError) as error:
        second_opinion(study(python=str(python)), [config()])
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_interpreter_says_how_to_make_one() -> None:
    with pytest.raises(ConfigError, match="no such interpreter; python3 -m venv DIR"):
        second_opinion(study(python="/nowhere/python"), [config()])


def test_a_cpu_is_refused_where_the_key_is_set() -> None:
    held = with_search(make_study(), aiconfigurator_python=sys.executable)
    with pytest.raises(ConfigError, match=r"no data of engine=openvino on hardware=cpu; .*leave the key out"):
        rank(held, build_space(held).configs)


@pytest.mark.skipif(not REAL.is_file(), reason="no .venv-aiconfigurator here")
@pytest.mark.parametrize("overrides", [(), ("model=llama-3.1-8b", "hardware=h100", "engine=vllm")])
def test_the_real_one_answers(overrides: tuple[str, ...]) -> None:
    held = study(*overrides, python=str(REAL))
    of = dataclasses.replace(config(tp=2, ep=2 if held.model.num_experts else 1), engine=held.engine.name)
    of = dataclasses.replace(of, precision=Precision(weights="fp4" if held.model.num_experts else "fp8"))
    second = second_opinion(held, [of])
    assert second.version is not None
    for one in judged(held, of, second):
        assert isinstance(one.theirs, Prediction)
        assert 0.3 < disagreement(one.ours, one.theirs)["output_tokens_per_s"] < 4
