from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AXES, load_study
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError
from pipeline.ranges import FRACTIONS, INTEGERS, MAX_VALUES, expanded
from pipeline.space import build_space
from tests.builders import MODELLED, make_study, with_axes

BATCH = "batching.max_batch_size"


def values(key: str, given: Any) -> Any:
    """What a conf path holds once it is expanded."""
    return expanded(given, key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batching.max_batch_size={from: 16, to: 1024, log: 2}", (16, 32, 64, 128, 256, 512, 1024)),
        ("batching.max_batch_size={from: 16, to: 1024, log: 4}", (16, 64, 256, 1024)),
        ("batching.max_num_tokens={from: 2048, to: 8192, step: 2048}", (2048, 4096, 6144, 8192)),
        ("batching.max_batch_size={from: 16.0, to: 32, log: 2}", (16, 32)),
        ("batching.max_batch_size={from: 64, to: 64, step: 1}", (64,)),
        ("batching.max_batch_size=[null,{from: 64, to: 256, log: 2},1000]", (None, 64, 128, 256, 1000)),
        ("batching.kv_cache_fraction={from: 0.7, to: 0.95, step: 0.05}", (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)),
        ("parallelism.tp={from: 1, to: 8, log: 2}", (1, 2, 4, 8)),
        ("engine.knobs.num_postprocess_workers={from: 1, to: 4, step: 1}", (1, 2, 3, 4)),
        ("engine.knobs.a.b={from: 0.1, to: 0.3, step: 0.1}", (0.1, 0.2, 0.3)),
    ],
)
def test_a_range_is_the_list_it_stands_for(text: str, expected: tuple[Any, ...]) -> None:
    found = make_study(*MODELLED, text).axes[text.partition("=")[0]]
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_a_study_of_a_range_is_that_of_the_list() -> None:
    plain = [text for text in MODELLED if text != "study=test"]
    as_range, as_list = (
        load_study([*plain, f"{BATCH}={text}"]) for text in ("{from: 64, to: 256, log: 2}", "[64,128,256]")
    )
    assert as_range == as_list


def test_the_last_of_several_overrides_wins_whatever_they_are() -> None:
    ranges = [f"{BATCH}={{from: 1, to: 4, log: 2}}", f"{BATCH}={{from: 1, to: 3, step: 1}}", f"{BATCH}=[7,8]"]
    assert load_study([*MODELLED, *ranges[:2]]).axes[BATCH] == (1, 2, 3)
    assert load_study([*MODELLED, *ranges]).axes[BATCH] == (7, 8)
    assert load_study([*MODELLED, *reversed(ranges)]).axes[BATCH] == (1, 2, 4)


def test_each_kind_of_server_of_a_split_deployment_has_ranges_too() -> None:
    key = "disaggregation.context.batching.max_num_tokens"
    study = load_study([*MODELLED, "disaggregation=split", f"{key}={{from: 2048, to: 8192, log: 2}}"])
    assert study.disaggregation is not None
    assert study.disaggregation.context["batching.max_num_tokens"] == (2048, 4096, 8192)


def test_a_mapping_of_knobs_that_is_no_range_stays_one() -> None:
    assert values("engine.knobs", {"moe_config": {"backend": "X"}}) == {"moe_config": {"backend": "X"}}
    assert values("workload", {"from": 1, "to": 2}) == {"from": 1, "to": 2}


def test_every_axis_that_takes_numbers_is_known_by_its_kind() -> None:
    """A new axis of numbers must be listed, or it would take no range."""
    for group, names in AXES.items():
        for name in names:
            asked: dict[str, Value | None] = {"precision.weights": "any", f"{group}.{name}": 1}
            try:
                stated = EngineConfig.from_axes("any", asked)
            except ValueError:
                assert name not in INTEGERS | FRACTIONS  # words only
                continue
            kind = type(getattr(getattr(stated, group), name))
            assert (name in INTEGERS, name in FRACTIONS) == (kind is int, kind is float), name


BAD = [
    ("{from: 1024, to: 16, log: 2}", "from is above to; write from: 16, to: 1024"),
    ("{from: 16, to: 100, step: 16}", "step does not lead from 16 to 100; write to: 96 or to: 112"),
    ("{from: 16, to: 100, log: 2}", "log does not lead from 16 to 100; write to: 64 or to: 128"),
    ("{from: 16, to: 64, log: 1}", "log must be above 1 and from above 0"),
    ("{from: 0, to: 64, log: 2}", "log must be above 1 and from above 0"),
    ("{from: 16, to: 64, step: 0}", "step must be above 0"),
    ("{from: 16, to: 64, step: -16}", "step must be above 0"),
    ("{from: 16, to: 17, step: 0.5}", "holds 16.5, and only integers are allowed"),
    ("{from: 10, to: 22.5, log: 1.5}", "holds 22.5, and only integers are allowed"),
    ("{from: 16, log: 2}", "to is missing; write {from: A, to: B, step: C} for sums"),
    ("{to: 16, log: 2}", "from is missing"),
    ("{from: 16, to: 64}", "exactly one of step and log is needed"),
    ("{from: 16, to: 64, log: 2, step: 16}", "exactly one of step and log is needed"),
    ("{form: 16, to: 64, log: 2}", "form is unknown; allowed are from, to, step, log"),
    ("{from: a, to: 64, log: 2}", "from must be a finite number"),
    ("{from: null, to: 64, log: 2}", "from must be a finite number"),
    ("{from: 1, to: true, step: 1}", "to must be a finite number"),
    ("{from: 1, to: inf, step: 1}", "to must be a finite number"),
    ("{from: 1, to: 1024, step: 1}", f"has more than {MAX_VALUES} values; choose a larger step"),
    ("{from: 1, to: 1e300, log: 1.0001}", f"has more than {MAX_VALUES} values; choose a larger log"),
    ("{}", "from is missing"),
]


@pytest.mark.parametrize(("text", "part"), BAD, ids=[text for text, _ in BAD])
def test_a_wrong_range_is_one_line_that_names_key_value_and_fix(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study([*MODELLED, f"{BATCH}={text}"])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{BATCH}={{")
    assert part in message


def test_an_axis_of_words_takes_no_range_and_one_out_of_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batching.chunked_prefill={.*}: takes no range, not being a number"):
        load_study([*MODELLED, "batching.chunked_prefill={from: 0, to: 1, step: 1}"])
    with pytest.raises(ConfigError, match=r"batching.kv_cache_fraction=1.1: .*less than or equal to 1"):
        load_study([*MODELLED, "batching.kv_cache_fraction={from: 0.9, to: 1.1, step: 0.1}"])


@given(first=st.integers(1, 10_000), stride=st.integers(2, 50), count=st.integers(1, MAX_VALUES), is_log=st.booleans())
def test_a_range_climbs_by_its_stride_from_end_to_end(first: int, stride: int, count: int, is_log: bool) -> None:
    expected = [first * stride**n if is_log else first + stride * n for n in range(min(count, 10))]
    found = values(BATCH, {"from": first, "to": expected[-1], "log" if is_log else "step": stride})
    assert found == expected


@given(st.integers(0, 100), st.integers(1, 100), st.integers(0, MAX_VALUES - 1))
def test_sums_of_fractions_are_as_one_would_write_them(first: int, step: int, count: int) -> None:
    given = {"from": first / 100, "to": (first + step * count) / 100, "step": step / 100}
    assert values("engine.knobs.share", given) == [(first + step * n) / 100 for n in range(count + 1)]


def test_a_small_space_of_ranges_is_enumerated_and_the_same_config_comes_once() -> None:
    """Values of an axis that the engine is told in the same way are one config, by its canonical hash."""
    study = make_study(*MODELLED, "batching.max_num_tokens={from: 4096, to: 8192, step: 4096}")
    axes = with_axes(
        study, precision__weights="fp4", parallelism__pp=(None, 1), parallelism__attention_dp=(None, False),
        batching__max_batch_size=(64, 128), batching__max_num_tokens=study.axes["batching.max_num_tokens"],
    )  # fmt: skip
    space = build_space(axes)
    assert not space.is_drawn
    assert sorted((c.batching.max_batch_size, c.batching.max_num_tokens) for c in space.configs) == [
        (64, 4096), (64, 8192), (128, 4096), (128, 8192),
    ]  # fmt: skip
