import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine_config import EngineConfig
from pipeline.search.encoding import Encoding


def config(**values: object) -> EngineConfig:
    axes = {"precision.weights": "fp4", **{key.replace("__", "."): value for key, value in values.items()}}
    return EngineConfig.from_axes("trtllm", axes)  # type: ignore[arg-type]  # each of its axis


def distance(encoding: Encoding, one: EngineConfig, other: EngineConfig) -> float:
    at = encoding([one, other])
    return float(np.linalg.norm(at[0] - at[1]))


def test_numbers_are_as_far_apart_as_their_logarithms() -> None:
    sizes = [config(batching__max_batch_size=size) for size in (64, 128, 256, 1024)]
    at = Encoding(sizes)(sizes)
    assert at[:, 0].tolist() == pytest.approx([0, 0.25, 0.5, 1])


def test_each_number_may_be_special_as_well() -> None:
    sizes = [config(batching__max_batch_size=size) for size in (64, 128, 256, 1024)]
    at = Encoding(sizes)(sizes)[:, 1:]
    assert (at @ at.T).tolist() == pytest.approx(np.eye(4) / 2)


def test_configs_that_differ_in_one_choice_are_one_apart() -> None:
    some = [config(engine__knobs__backend=name) for name in ("A", "B", "C")]
    encoding = Encoding(some)
    for one in some:
        for other in some:
            assert distance(encoding, one, other) == pytest.approx(float(one != other))


def test_what_all_share_is_no_column_and_what_some_leave_out_is_one() -> None:
    some = [config(parallelism__tp=2), config(parallelism__tp=2, batching__max_batch_size=64)]
    assert Encoding(some)(some).shape == (2, 3)
    assert Encoding(some[:1])(some[:1]).shape == (1, 0)
    assert Encoding(some)([]).shape == (0, 3)


def test_a_degree_that_is_left_out_is_one() -> None:
    some = [config(parallelism__tp=8), config(parallelism__tp=8, parallelism__ep=8)]
    assert Encoding(some)(some)[:, 0].tolist() == [0, 1]


def test_true_is_no_number_and_zero_lies_below_one() -> None:
    flags = [config(engine__knobs__x=value) for value in (True, False)]
    assert Encoding(flags)(flags).shape == (2, 2)
    counts = [config(engine__knobs__x=value) for value in (0, 1, 2)]
    assert Encoding(counts)(counts)[:, 0].tolist() == pytest.approx([0, 0.5, 1])


@given(st.lists(st.sampled_from([None, 0, 1, 4, 0.5, True, "a"]), min_size=2, max_size=6))
def test_equal_configs_have_equal_lines_and_all_are_finite(values: list[object]) -> None:
    some = [config(engine__knobs__x=value) for value in values]
    at = Encoding(some)(some)
    assert np.isfinite(at).all()
    for n, one in enumerate(some):
        for m, other in enumerate(some):
            assert (at[n] == at[m]).all() == (one.config_hash == other.config_hash)
