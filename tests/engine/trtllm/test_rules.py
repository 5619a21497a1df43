import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.trtllm.rules import RULES, Rule, broken_rule, doubts
from pipeline.engine_config import EngineConfig, Value
from pipeline.study import Study
from tests.engine.trtllm.rule_cases import AXES, CASES, GRAPH, PADDING, SIZES, Case, config_of, study_of

BY_NAME = {rule.name: rule for rule in RULES}

FIX = re.compile(r"[;?] (use|set|leave|raise|lower|choose|give) ")
"""What to do."""


def broken(case: Case) -> tuple[EngineConfig, Study]:
    """The config that breaks, and its study."""
    return config_of({**case.always, **case.breaks}), study_of(case.model, case.on, case.workload, case.weights)


def spared(case: Case) -> tuple[EngineConfig, Study]:
    """The near miss, and its study."""
    study = study_of(
        case.else_model or case.model, case.else_on or case.on, case.workload, case.else_weights or case.weights
    )
    return config_of({**case.always, **case.spares}), study


def at(study: Study, version: str | None) -> Study:
    """The study for a version."""
    return dataclasses.replace(study, engine=dataclasses.replace(study.engine, version=version))


def assert_helpful(message: str, config: EngineConfig) -> None:
    """It begins with a key of the config, `group.key=value: why; what to do`, in one line."""
    key, equals, _ = message.partition("=")
    if not equals or ":" in key:
        key = message.partition(":")[0]
    group, _, name = key.partition(".")
    if group == "engine":
        name = name.removeprefix("knobs.")
        assert any(name in known or known in name for known in (*config.knobs, GRAPH, "moe_config.backend")), message
    else:
        assert group in {"parallelism", "batching", "precision"}, message
        assert hasattr(getattr(config, group), name), message
    assert FIX.search(message), message
    assert "\n" not in message


def test_every_rule_has_its_pair_and_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(RULES)
    assert set(BY_NAME) == set(CASES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_says_where_it_is_from_and_can_stand_in_a_table(rule: Rule) -> None:
    assert rule.name == rule.name.lower().replace(" ", "_")
    assert rule.source
    assert "|" not in rule.source
    assert rule.kind in {"refuses", "warns"}


@pytest.mark.parametrize("name", CASES)
def test_one_config_breaks_it_and_one_like_it_does_not(name: str) -> None:
    rule, case = BY_NAME[name], CASES[name]
    reason = rule.check(*broken(case))
    assert reason is not None
    assert_helpful(reason, broken(case)[0])
    assert rule.check(*spared(case)) is None


@pytest.mark.parametrize("name", [rule.name for rule in RULES if rule.kind == "refuses"])
def test_a_broken_refusal_is_refused(name: str) -> None:
    assert broken_rule(*broken(CASES[name])) is not None


@pytest.mark.parametrize("name", [rule.name for rule in RULES if rule.kind == "warns" and rule.until is None])
def test_a_broken_warning_is_a_doubt_only(name: str) -> None:
    config, study = broken(CASES[name])
    assert BY_NAME[name].check(config, study) in doubts(config, study)


def test_a_rule_holds_from_one_version_up_to_another() -> None:
    rule = Rule(name="r", kind="warns", source="s", check=lambda *_: "x", since="1.1.0", until="1.3.0rc1")
    assert [rule.holds_in(version) for version in ("1.0.0", "1.1.0rc2", "1.1.0", "1.2.1", "1.3.0rc1", None)] == [
        False, False, True, True, False, False,
    ]  # fmt: skip


def test_a_rule_of_old_versions_is_not_asked_of_new_ones() -> None:
    config, study = broken(CASES["moe_backend_auto"])
    assert any("up to 1.2" in doubt for doubt in doubts(config, at(study, "1.2.0")))
    assert not any("up to 1.2" in doubt for doubt in doubts(config, at(study, None)))


def test_the_first_refusal_is_given() -> None:
    config = config_of({"stream_interval": 0, "encode_only": True})
    assert "stream_interval" in str(broken_rule(config, study_of()))


PAIRS = [
    pair for case in CASES.values() for part in (case.always, case.breaks, case.spares) for pair in part.items()
]  # fmt: skip

VALUES: dict[str, st.SearchStrategy[Value]] = {
    name: st.sampled_from(sorted({value for key, value in PAIRS if key == name}, key=repr))
    for name in sorted({key for key, _ in PAIRS})
}
"""Every key of the cases, with the values that it has in any."""

OF_ANY_TYPE: tuple[Value, ...] = (True, False, -1, 0, 3, 0.5, "x", (), (0, "x"))


@settings(max_examples=200, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
    ),
    model=st.sampled_from(("gpt-oss-120b", "deepseek-r1", "qwen3-235b-a22b", "llama-3.1-8b")),
    hardware=st.sampled_from(("h100", "b200", "gb200_nvl72")),
    weights=st.sampled_from(("checkpoint", "random")),
)
def test_whatever_is_asked_a_message_names_a_key_and_a_fix(
    chosen: dict[str, Value], model: str, hardware: str, weights: str
) -> None:
    config, study = config_of(chosen), study_of(model, hardware, weights=weights)
    reason = broken_rule(config, study)
    for message in (*doubts(config, study), *([reason] if reason else [])):
        assert_helpful(message, config)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([name for name in sorted(VALUES) if not name.startswith(AXES)]),
        st.sampled_from(OF_ANY_TYPE),
        max_size=5,
    )
)
def test_no_rule_dies_of_a_value_of_another_type(knobs: dict[str, Value]) -> None:
    for rule in RULES:
        rule.check(config_of(knobs), study_of())


def with_load(study: Study, concurrency: int) -> Study:
    """The study at one number of concurrent requests."""
    return dataclasses.replace(study, workload=dataclasses.replace(study.workload, concurrency=(concurrency,)))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({GRAPH: 128}, None),
        ({GRAPH: 64}, "each of 8 ranks decodes 128"),
        ({GRAPH: 1024}, None),  # NVIDIA's way to write it: cut down to max_batch_size
        ({GRAPH: 1024, "batching.max_batch_size": 64}, None),  # more than 64 never decode, and 64 have a graph
        ({GRAPH: 1024, "batching.max_num_tokens": 64}, None),
        ({SIZES: (1, 64, 128)}, None),
        ({GRAPH: 128, PADDING: False}, "only if all 8 ranks decode equally many"),
        ({"cuda_graph_config": False}, None),
        ({"batching.max_batch_size": 2048, PADDING: True}, None),  # graphs up to max_batch_size
        ({}, None),  # graphs up to 128, TensorRT-LLM's own default
    ],
)
def test_with_attention_dp_limits_and_graph_sizes_count_the_requests_of_one_rank(
    given: dict[str, Value], complaint: str | None
) -> None:
    layout: dict[str, Value] = {"parallelism.tp": 8, "parallelism.ep": 8, "parallelism.attention_dp": True}
    study = with_load(study_of(), 1024)
    reason = BY_NAME["decode_graphs"].check(config_of({**layout, **given}), study)
    assert (reason is None) if complaint is None else (complaint in str(reason))
    if GRAPH in given and reason is None and "batching.max_batch_size" not in given:
        alone = BY_NAME["decode_graphs"].check(config_of({"parallelism.tp": 8, **given}), study)
        assert (alone is None) == (given[GRAPH] == 1024 or "batching.max_num_tokens" in given)


def test_without_padding_graphs_end_at_the_engines_own_default_whatever_the_batch() -> None:
    study = with_load(study_of(), 256)
    for padding, reach in ((True, None), (False, "holds 128 requests")):
        config = config_of({"batching.max_batch_size": 256, PADDING: padding})
        reason = BY_NAME["decode_graphs"].check(config, study)
        assert (reason is None) if reach is None else (reach in str(reason))
