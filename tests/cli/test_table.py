"""Lines of the result tables: a label tells a config from the others, whatever each of them leaves unset."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.table import COLUMNS, LEFT_OUT, failures, result_tables
from pipeline.config_text import label, shared_text, varying_keys
from pipeline.resume import stored_study
from pipeline.store import Store
from pipeline.vocabulary import TrialStatus
from tests.builders import make_trial

TP = {"precision.weights": "fp4", "parallelism.tp": 1}


def as_json(**others: object) -> str:
    return json.dumps(TP | {key.replace("__", "."): value for key, value in others.items()})


DEFAULT, SMALL = as_json(), as_json(batching__max_batch_size=64)
WORKERS = as_json(batching__max_batch_size=64, engine__knobs__num_postprocess_workers=4)


def test_a_knob_that_only_some_set_tells_them_apart() -> None:
    configs = {DEFAULT, SMALL, WORKERS}
    assert label(WORKERS, configs) == "num_postprocess_workers=4"
    assert label(SMALL, configs) == "as above"
    assert label(DEFAULT, configs) == "as above, else engine default"
    assert shared_text(configs) == "weights=fp4 tp=1 max_batch_size=64"


def test_the_engines_default_alone_makes_no_key_vary() -> None:
    assert varying_keys({DEFAULT, SMALL}) == set()
    assert varying_keys({SMALL, as_json(batching__max_batch_size=128)}) == {"batching.max_batch_size"}


def test_knobs_keep_their_whole_path_and_may_be_lists() -> None:
    graphs = as_json(engine__knobs__cuda_graph_config__batch_sizes=[1, 8])
    assert label(graphs, {graphs, SMALL}) == "cuda_graph_config.batch_sizes=[1, 8]"


VALUES = st.dictionaries(
    st.sampled_from(["batching.max_batch_size", "engine.knobs.a", "engine.knobs.b"]),
    st.sampled_from([1, 2]),
    min_size=1,
)


@given(chosen=st.lists(VALUES, min_size=1, max_size=5))
def test_different_configs_have_different_labels(chosen: list[dict[str, int]]) -> None:
    configs = {json.dumps(TP | values, sort_keys=True) for values in chosen} | {DEFAULT}
    assert len({label(config, configs) for config in configs}) == len(configs)


def test_a_narrow_terminal_gets_fewer_columns_and_is_told_so() -> None:
    store = Store(Path(__file__).parents[2] / "results")
    study = "h100-tp2-llama-3.1-8b"
    held = stored_study(store, study)
    (wide,) = result_tables(store.rows(study), store.trials(study), held, 160)
    (narrow,) = result_tables(store.rows(study), store.trials(study), held, 80)
    assert [column.header for column in wide.columns] == COLUMNS
    assert str(wide.caption).startswith("in brackets: share of what the hardware's published limits allow")
    assert list(wide.columns[COLUMNS.index("tok/s")].cells) == ["8,540 (44 %)"]
    left = [column.header for column in narrow.columns]
    assert left == [name for name in COLUMNS if name not in LEFT_OUT]
    assert str(narrow.caption).endswith("left out for lack of room: TPOT p99, by, tok/s/user, ±95 %")


def test_a_trial_that_was_cut_is_no_failure() -> None:
    ends = (TrialStatus.OK, TrialStatus.PRUNED, TrialStatus.INTERRUPTED, TrialStatus.HUNG)
    (line,) = failures([make_trial(number=n, status=status, reasons=("so",)) for n, status in enumerate(ends)])
    assert line.startswith("trial 3 hung: so")
