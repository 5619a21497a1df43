import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.compose import compose_conf, conf_dir, groups, nearest
from pipeline.config import AXES, load_study, read_engine_config
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.held import held
from pipeline.study import ON_GPUS, Study
from pipeline.workload import OperatingPoint
from tests.builders import MODELLED, make_study

EXPERIMENTS = groups()["experiment"]
CHOICES = {group: choices for group, choices in groups().items() if group != "experiment"}


def one_line(overrides: list[str]) -> str:
    """The message that these overrides are refused with."""
    with pytest.raises(ConfigError) as caught:
        load_study(overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("turn", range(max(map(len, CHOICES.values()))))
def test_every_choice_of_every_group_composes(turn: int) -> None:
    """Each turn takes the next choice of every group, so that all of them are seen."""
    chosen = {group: choices[turn % len(choices)] for group, choices in CHOICES.items()}
    chosen |= {"engine": "trtllm"} if chosen["space"] == "full" else {}
    chosen |= {"hardware": "h100"} if chosen["engine"] in ON_GPUS and chosen["hardware"] == "cpu" else {}
    study = load_study([f"{group}={choice}" for group, choice in chosen.items()])
    assert study.model.name == chosen["model"]
    assert study.hardware.name == chosen["hardware"]
    assert study.engine.name == chosen["engine"]
    assert study.slo.name == chosen["slo"]
    assert study.plan.name == chosen["plan"]
    axes = {f"{group}.{name}" for group, names in AXES.items() for name in names}
    assert {key for key in study.axes if not key.startswith("engine.knobs.")} == axes


@pytest.mark.parametrize(
    "path", sorted(conf_dir().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_choice_is_named_after_its_file(path: Path) -> None:
    values = yaml.safe_load(path.read_text("utf-8"))
    if "name" in values:
        assert values["name"] == path.stem


def test_the_default_study_is_the_embedded_one() -> None:
    study = make_study()
    assert (study.model.name, study.engine.name, study.hardware.kind) == ("tiny-llama", "openvino", "cpu")
    assert (study.weights, study.rig, study.plan.gates) == ("random", "served", "warn")


def test_a_real_model_takes_its_checkpoint_and_a_modelled_rig_no_weights() -> None:
    assert load_study(["model=llama-3.1-8b"]).weights == "checkpoint"
    assert make_study(*MODELLED).weights == "none"


def test_axes_are_lists_single_values_or_not_set() -> None:
    study = load_study([
        *MODELLED, "precision.weights=fp4", "precision.kv_cache=[auto,fp8]", "parallelism.tp=[2,4]",
        "parallelism.pp=2", "batching.max_batch_size=[null,64]", "batching.kv_cache_fraction=0.85",
        "batching.chunked_prefill=[true,false]", "batching.max_num_tokens=null", "engine.knobs=null",
        "engine.knobs.moe_backend=[TRTLLM,7]", "+engine.knobs.a.b=true", "engine.knobs.sizes=[[1,2],null,[4]]",
    ])  # fmt: skip
    assert study.axes == {
        "precision.weights": ("fp4",), "precision.kv_cache": ("auto", "fp8"), "parallelism.tp": (2, 4),
        "parallelism.pp": (2,), "parallelism.cp": (None,), "parallelism.ep": (1, 2, 4, 8),
        "parallelism.attention_dp": (False, True), "parallelism.moe_tp": (None,),
        "batching.max_batch_size": (None, 64), "batching.max_num_tokens": (None,),
        "batching.kv_cache_fraction": (0.85,), "batching.chunked_prefill": (True, False),
        "engine.knobs.moe_backend": ("TRTLLM", 7), "engine.knobs.a.b": (True,),
        "engine.knobs.sizes": ((1, 2), None, (4,)),
    }  # fmt: skip
    assert [type(value) for value in study.axes["batching.chunked_prefill"]] == [bool, bool]


def test_an_integer_written_as_a_fraction_is_that_integer_and_comes_once() -> None:
    found = load_study([*MODELLED, "batching.max_batch_size=[64.0,128]"]).axes["batching.max_batch_size"]
    assert [repr(value) for value in found] == ["64", "128"]
    assert "a value is given twice" in one_line([*MODELLED, "batching.max_batch_size=[64,64.0]"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str) -> None:
    assert load_study([f"experiment={name}"]).id != make_study().id


@pytest.mark.parametrize("engine", sorted(ON_GPUS))
def test_an_engine_of_gpus_is_not_served_with_a_processors_watts(engine: str) -> None:
    asked = ["model=llama-3.1-8b", f"engine={engine}", "precision=bf16"]
    message = one_line([*asked, "hardware=cpu"])
    assert message.startswith(f"hardware=cpu: engine={engine} runs on GPUs")
    assert "leave hardware out" in message
    assert load_study([*asked, "hardware=h100"]).engine.name == engine
    assert load_study(["hardware=cpu", "engine=attached"]).hardware.name == "cpu"


def test_an_experiment_sets_several_groups_and_the_user_still_wins() -> None:
    study = load_study(["experiment=smoke", "plan.window_s=0.75"])
    assert (study.workload.concurrency, study.search.budget_trials, study.plan.window_s) == ((1, 16), 3, 0.75)


@pytest.mark.parametrize(
    "value",
    ["INFO", "0", "1e5", "true", "null", "a,b", "[1,2]", "x=y", "it's", "a\\b", "end\\", "q\\'x", "", "/a/b:/c d"],
)
def test_a_variable_of_the_environment_is_added_as_the_text_it_is(value: str) -> None:
    for key in ("engine.env.NCCL_DEBUG", "+engine.env.NCCL_DEBUG"):
        assert load_study([f"{key}={value}"]).engine.env == {"NCCL_DEBUG": value}
    assert load_study([f"engine.env.NCCL_DEBUG='{'INFO'}'"]).engine.env == {"NCCL_DEBUG": "INFO"}


def test_one_load_is_a_ladder_too() -> None:
    assert load_study(["workload.concurrency=16"]).workload.concurrency == (16,)


def test_composing_leaves_no_trace_of_the_last_time() -> None:
    first = compose_conf(["plan=quick"])
    compose_conf(["plan=demo", "model=gpt-oss-20b"])
    assert compose_conf(["plan=quick"]) == first


GROUP_LIST = "allowed: baseline, batching, calibration, disaggregation, engine, engines_dir"
BAD: list[tuple[str, list[str]]] = [
    ("mode=tiny-llama", ["mode: unknown key", "did you mean 'model'?", GROUP_LIST]),
    (
        "model=tiny-lama",
        ["model=tiny-lama: unknown", "did you mean 'tiny-llama'?", "allowed: deepseek-r1, deepseek-v3"],
    ),
    ("hardware=b20", ["hardware=b20: unknown", "did you mean 'b200'?", "gb300_nvl72"]),
    ("plan=null", ["plan=None: unknown", "allowed: demo, publish, quick, standard"]),
    ("experiment=nope", ["experiment=nope: unknown; allowed: smoke"]),
    ("plan.windw_s=1", ["plan.windw_s: unknown key", "did you mean 'plan.window_s'?", "plan.block_s"]),
    ("foo.bar=1", ["foo.bar: unknown key", GROUP_LIST]),
    ("precision.bits=4", ["precision.bits: unknown key", "allowed: precision.weights, precision.kv_cache"]),
    ("+precision.bits=4", ["precision.bits: unknown key", "allowed: precision.weights, precision.kv_cache"]),
    ("space=full", ["space=full: is of engine=trtllm; engine=openvino"]),
    ("model=tiny-llama,gpt-oss-20b", ["model=tiny-llama,gpt-oss-20b: one value is allowed"]),
    ("precision.weights=fp8,fp4", ["one value is allowed", "precision.weights=[A,B]"]),
    ("~plan", ["~plan: cannot be taken away"]),
    ("~workload.concurrency", ["~workload.concurrency: cannot be taken away"]),
    ("window", ["'window' is no override; write key=value, lists as key=[1,2]"]),
    ("a b=c", ["'a b=c' is no override"]),
    ("plan.window_s=[1", ["'plan.window_s=[1' is no override"]),
    ("study=${nope}", ["nope"]),
    ("plan.window_s=abc", ["plan.window_s='abc'", "valid number"]),
    ("plan.window_s=-1", ["plan.window_s=-1", "greater than 0"]),
    ("plan.window_s=inf", ["plan.window_s=inf", "finite"]),
    ("plan.gates=maybe", ["plan.gates='maybe'", "'warn' or 'enforce'"]),
    ("plan.warmup_max_s=0.1", ["plan.warmup_max_s=0.1: below plan.warmup_s="]),
    ("rig=real", ["rig='real'", "'served' or 'modelled'"]),
    ("meter=foo", ["meter='foo'", "'auto', 'nvml', 'rapl' or 'declared'"]),
    ("weights=fine", ["weights='fine'", "'checkpoint', 'random' or 'none'"]),
    ("weights=none", ["weights=none: a server needs weights; allowed: checkpoint, random"]),
    ("workload.concurrency=[]", ["workload.concurrency=[]", "write e.g. [1,4,16,64]"]),
    ("workload.concurrency=[1,5]", ["5 is not on the grid 1, 2, 3, 4, 6, 8", "use 4"]),
    ("workload.concurrency=[1,4,4]", ["workload.concurrency=[1, 4, 4]", "write [1, 4]"]),
    ("workload.concurrency=[16,1]", ["workload.concurrency=[16, 1]", "write [1, 16]"]),
    ("workload.concurrency=[true]", ["True is not on the grid"]),
    ("workload.arrival=poisson", ["workload.request_rate_per_s=[]", "write e.g. [1,2,4]"]),
    ("workload.request_rate_per_s=[1]", ["only for workload.arrival=poisson; it is closed"]),
    ("workload.arrival=schedule", ["needs workload.lengths_file=FILE.csv with at_s"]),
    ("workload.arrival=sometimes", ["workload.arrival='sometimes'", "'closed', 'poisson' or 'schedule'"]),
    ("workload.lengths_file=/nowhere.csv", ["workload.lengths_file=/nowhere.csv: cannot be read"]),
    ("workload.shared_prefix_tokens=51", ["workload.shared_prefix_tokens=51", "shortest has 51 tokens; at most 50"]),
    ("workload.osl_tokens=1", ["workload.osl_tokens=1", "greater than or equal to 2"]),
    ("search.budget_trials=0", ["search.budget_trials=0: at least 1 trial", "BUDGET=12"]),
    ("search.sampler=cma", ["search.sampler='cma'", "'residual', 'gp', 'tpe', 'random' or 'grid'"]),
    ("slo.ttft_p99_s=0", ["slo.ttft_p99_s=0", "greater than 0"]),
    ("study=a/b", ["study='a/b'", "letters, digits, '.', '_' and '-'"]),
    ("study=..", ["study='..'", "letters, digits"]),
    ("study=''", ["study=''", "letters, digits"]),
    ("results_dir=null", ["results_dir=None", "valid string"]),
    ("precision.weights=null", ["precision.weights=null", "name a format"]),
    ("precision.weights=[]", ["precision.weights=[]: an axis needs at least one value"]),
    ("precision.weights=[bf16,4]", ["precision.weights=4", "valid string"]),
    ("parallelism.tp=two", ["parallelism.tp='two'", "valid integer"]),
    ("parallelism.tp=[1,0]", ["parallelism.tp=0", "greater than or equal to 1"]),
    ("batching.kv_cache_fraction=1.5", ["batching.kv_cache_fraction=1.5", "less than or equal to 1"]),
    ("batching.max_batch_size=[4,4]", ["batching.max_batch_size=[4, 4]: a value is given twice"]),
    ("batching.max_batch_size=[[4]]", ["batching.max_batch_size=[4]", "a number, a word, true, false or null"]),
    ("engine.knobs=3", ["engine.knobs=3", "engine.knobs.NAME=VALUE"]),
    ("+engine.knobs.a=[[1,{b:2}]]", ["engine.knobs.a=[1, {'b': 2}]", "a number, a word, true, false or null"]),
    ("engine.port=99999", ["engine.port=99999", "less than or equal to 65535"]),
    ("baseline=/nowhere/x.yaml", ["baseline=/nowhere/x.yaml: cannot be read", "give a YAML file"]),
]


@pytest.mark.parametrize(("override", "said"), BAD, ids=[override for override, _ in BAD])
def test_bad_input_is_one_line_that_says_what_is_wrong_and_what_is_allowed(override: str, said: list[str]) -> None:
    message = one_line([override])
    assert [part for part in said if part not in message] == [], message


def test_blocks_too_long_for_the_window_are_refused_where_gates_are_enforced() -> None:
    assert "plan.block_s=10" in one_line(["plan=quick", "plan.block_s=10"])
    assert load_study(["plan=demo", "plan.block_s=10"]).plan.block_s == 10


@pytest.mark.parametrize(("word", "hint"), [("tiny-lama", " (did you mean 'tiny-llama'?)"), ("zzz", "")])
def test_the_nearest_word_is_offered_where_one_is_near(word: str, hint: str) -> None:
    assert nearest(word, ["tiny-llama", "gpt-oss-20b"]) == hint


def test_a_study_may_be_named_by_a_number() -> None:
    assert load_study(["study=2026"]).id == "2026"


def test_the_id_is_the_same_in_another_process() -> None:
    code = "from pipeline.config import load_study; print(load_study([]).id)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={
        "PYTHONHASHSEED": "12345"}, cwd=Path(__file__).parents[1])  # fmt: skip
    assert seen.stdout.strip() == make_study().id


def test_the_id_does_not_depend_on_what_may_change_from_run_to_run(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.yaml"
    baseline.write_text("precision: {weights: bf16}")
    changed = load_study([
        "results_dir=elsewhere", "engines_dir=elsewhere", "search=wide", "search.budget_trials=99", "slo=batch",
        "batching=default", "precision=bf16", "engine.knobs.num_threads=1", "engine.python=/opt/python",
        f"baseline={baseline}",
    ])  # fmt: skip
    assert changed.id == make_study().id
    assert changed != make_study()


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("model", {"name": "another"}),
        ("model", {"path": "/another"}),
        ("hardware", {"name": "another"}),
        ("hardware", {"num_gpus": 7}),
        ("hardware", {"declared_idle_w": 77.0}),
        ("hardware", {"declared_busy_w_per_core": 77.0}),
        ("engine", {"name": "vllm"}),
        ("workload", {"isl_tokens": 7}),
        ("workload", {"seed": 7}),
        ("workload", {"concurrency": (1,)}),
        ("plan", {"window_s": 7.0}),
        ("plan", {"gates": "enforce"}),
        (None, {"rig": "modelled"}),
        (None, {"meter": "rapl"}),
        (None, {"weights": "checkpoint"}),
        ("hardware", {"power_cap_w": 500.0}),
        ("hardware", {"sm_clock_share": 0.5}),
    ],
)
def test_what_a_study_holds_is_whatever_makes_rows_incomparable(part: str | None, changes: dict[str, Any]) -> None:
    study = make_study()
    changed: Study = dataclasses.replace(
        study, **changes if part is None else {part: dataclasses.replace(getattr(study, part), **changes)}
    )
    differing = [key for key, value in held(changed).items() if held(study).get(key) != value]
    assert differing == [f"{part}.{name}" if part else name for name in changes]


def test_a_calibration_is_held_where_rows_come_from_it_alone() -> None:
    served, modelled = make_study(), make_study(*MODELLED)
    assert held(dataclasses.replace(served, calibration="own.json")) == held(served)
    assert held(dataclasses.replace(modelled, calibration="own.json"))["calibration"] == "own.json"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("hardware.power_cap_w=140",),
            "hardware.power_cap_w=140: a board draws hardware.idle_power_w=141 doing nothing",
        ),
        (("hardware.power_cap_w=0",), "hardware.power_cap_w=0: Input should be greater than 0"),
        (("hardware.sm_clock_share=0.1",), "hardware.sm_clock_share=0.1: Input should be greater than or equal to 0.3"),
        (("hardware.sm_clock_share=0.5", "hardware.power_cap_w=500"), "a cap chooses the clock itself; leave out"),
        (("hardware.power_cap_w=500", "rig=served"), "hardware.power_cap_w=500: is of rig=modelled only"),
        (("hardware.sm_clock_share=0.5", "rig=served"), "hardware.sm_clock_share=0.5: is of rig=modelled only"),
        (("model.num_kv_heads=7",), "model: num_kv_heads=7 does not divide num_heads=64"),
    ],
)
def test_a_power_state_that_cannot_be_and_facts_that_contradict_are_refused(
    overrides: tuple[str, ...], said: str
) -> None:
    assert said in one_line([*MODELLED, *overrides])


def test_the_id_follows_from_what_is_held() -> None:
    ids = {make_study().id, load_study(["plan.window_s=3"]).id, load_study(["hardware.declared_idle_w=77"]).id}
    assert len(ids) == 3
    assert all(each.startswith("tiny-llama_cpu_openvino_tiny_demo-") for each in ids)


BASELINE = """
precision: {weights: fp4, kv_cache: fp8}
parallelism: {tp: 4, ep: 2}
batching: {max_batch_size: 256, chunked_prefill: true}
engine: {knobs: {moe_backend: CUTLASS}}
"""


def test_a_baseline_is_read(tmp_path: Path) -> None:
    path = tmp_path / "baseline.yaml"
    path.write_text(BASELINE)
    assert read_engine_config(path, "trtllm").requested() == {
        "precision.weights": "fp4", "precision.kv_cache": "fp8", "parallelism.tp": 4, "parallelism.ep": 2,
        "batching.max_batch_size": 256, "batching.chunked_prefill": True, "engine.knobs.moe_backend": "CUTLASS",
    }  # fmt: skip
    study = load_study([*MODELLED, f"baseline={path}"])
    assert study.baseline == read_engine_config(path, "trtllm")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no mapping; write e.g. 'precision: {weights: bf16}'"),
        ("- a\n- b", "holds no mapping"),
        ("precision: {weights: [", "cannot be read"),
        ("\udcff\udcfe", "cannot be read"),
        ("{}", "precision: Field required"),
        ("precision: bf16", "precision='bf16'"),
        ("precision: {weights: bf16, bits: 4}", "precision.bits=4"),
        ("precision: {weights: bf16}\nspeed: 9", "speed: allowed are precision, parallelism, batching and engine"),
        ("precision: {weights: bf16}\nknobs: {a: 1}", "knobs: allowed are"),
        ("precision: {weights: bf16}\n7: 8", "7: allowed are"),
        ("precision: {weights: bf16}\nengine: trtllm", "engine: allowed are"),
        ("precision: {weights: bf16}\nengine: {python: x}", "engine: allowed are"),
        ("precision: {weights: bf16}\nengine: {knobs: [1]}", "knobs=[1]"),
        ("precision: {weights: bf16}\nparallelism: {tp: 0}", "parallelism.tp=0: Input should be greater than or equal"),
        ("precision: {weights: bf16}\nparallelism: {tp: many}", "parallelism.tp='many'"),
    ],
)
def test_a_bad_baseline_is_one_line_that_names_the_file(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "baseline.yaml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_engine_config(path, "trtllm")
    assert str(caught.value).startswith(f"baseline={path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_plan_does_not_go_by_the_name_of_the_kept_one() -> None:
    kept, changed = load_study(["plan=quick"]).plan, load_study(["plan=quick", "plan.window_s=30"]).plan
    assert kept.name == "quick"
    assert re.fullmatch(r"quick-[0-9a-f]{4}", changed.name)
    assert load_study(["plan=quick", "plan.window_s=31"]).plan.name != changed.name
    assert load_study(["plan=quick", "plan.starts=9", "plan.windows=3"]).plan.name == "quick"
    assert load_study(["plan=quick", "plan.name=mine", "plan.window_s=30"]).plan.name == "mine"


def test_an_open_loop_climbs_rates_and_a_file_gives_its_lengths(tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("at_s,isl_tokens,osl_tokens\n0,10,30\n1,40,20\n")
    poisson = load_study(["workload.arrival=poisson", "workload.request_rate_per_s=[0.5,2]"]).workload
    assert [point.request_rate_per_s for point in poisson.ladder] == [0.5, 2]
    assert poisson.concurrency == ()
    closed = load_study([f"workload.lengths_file={file}"]).workload
    assert (closed.isl_tokens, closed.osl_tokens, closed.length_ratio_min) == (40, 30, 0.25)
    schedule = load_study([f"workload.lengths_file={file}", "workload.arrival=schedule"])
    assert schedule.workload.ladder == (OperatingPoint(),)
    file.write_text("isl_tokens,osl_tokens\n10,30\n")
    with pytest.raises(ConfigError, match="has no column at_s"):
        load_study([f"workload.lengths_file={file}", "workload.arrival=schedule"])
    other = load_study([f"workload.lengths_file={file}"])
    config = EngineConfig.from_axes("openvino", {"precision.weights": "bf16"})
    cases = {s.case_id(config, OperatingPoint(concurrency=1)) for s in (schedule, other, load_study([]))}
    assert len(cases) == 3
