"""`tpw render` writes engine folders without a GPU, an engine or a checkpoint."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline.cli.measure import attached
from pipeline.cli.render import study_to_render
from pipeline.engine.catalog import find_engine
from pipeline.engine.trtllm.manifest import find_manifest
from pipeline.engine.trtllm.versions import NEWEST
from pipeline.errors import ConfigError
from pipeline.render import renderings
from pipeline.repeat import only_config
from tests.cli.command import Said, tpw
from tests.engine.trtllm.hand_run import assert_is_bash, calls, environment, install, run

SMALL = (
    "engine=trtllm", "model=gpt-oss-120b", "parallelism.tp=[1,2]", "parallelism.ep=1", "parallelism.attention_dp=false",
    "precision=fp4", "precision.kv_cache=fp8", "batching=default", "batching.max_batch_size=[64,128]",
    "engine.knobs.moe_config.backend=TRTLLM", "engine.knobs.attention_dp_config.enable_balance=null",
    "engine.knobs.speculative_config.decoding_type=null", "engine.knobs.speculative_config.max_draft_len=null",
    "engine.knobs.num_postprocess_workers=null", "engine.knobs.stream_interval=null",
)  # fmt: skip
"""Four configs, and the baseline, which sets none of the batching."""

B200 = (*SMALL, "hardware=b200")

NVL72 = (*SMALL, "hardware=gb200_nvl72", "parallelism.tp=8")

SPLIT = (
    *B200, "disaggregation=split", "disaggregation.num_context_servers=1", "disaggregation.num_generation_servers=1",
    "disaggregation.context.parallelism.tp=1", "disaggregation.generation.parallelism.tp=[1,2]",
    "disaggregation.generation.parallelism.ep=1", "disaggregation.generation.parallelism.attention_dp=false",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No checkpoint is on this machine."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def folders(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.is_dir())


def metas(out: Path) -> list[dict[str, object]]:
    return [json.loads((folder / "meta.json").read_text()) for folder in folders(out)]


def rendered(out: Path, *words: object) -> Said:
    said = tpw("render", *words, f"out={out}")
    assert (said.status, said.err) == (0, "")
    return said


def test_it_writes_what_starts_each_config(tmp_path: Path) -> None:
    said = rendered(tmp_path / "out", *B200, "count=3")
    assert len(folders(tmp_path / "out")) == 3
    for folder in folders(tmp_path / "out"):
        assert {path.name for path in folder.iterdir()} == {
            "config.yaml", "argv.json", "env.json", "serve.sh", "meta.json",
        }  # fmt: skip
        assert_is_bash(folder / "serve.sh")
        assert find_manifest(NEWEST).problems(yaml.safe_load((folder / "config.yaml").read_text())) == []
        assert folder.name in said.out
    assert "Nothing was started" in said.out


def test_meta_says_what_it_is_for_and_that_it_did_not_run(tmp_path: Path) -> None:
    rendered(tmp_path / "out", *B200, "count=2")
    for folder, meta in zip(folders(tmp_path / "out"), metas(tmp_path / "out"), strict=True):
        assert meta["rendered_hash"] == folder.name
        assert meta["evidence"] == "rendered, not run"
        assert (meta["version"], meta["version_is_tested"]) == (NEWEST, True)
        model = meta["model"]
        assert isinstance(model, dict)
        assert (model["repo"], model["format"], model["activations"]) == ("openai/gpt-oss-120b", "mxfp4", "mxfp8")
        assert meta["config"]["precision.weights"] == "fp4"  # type: ignore[index]
        assert meta["hardware"]["name"] == "b200"  # type: ignore[index]


def test_an_unknown_version_is_marked_untested(tmp_path: Path) -> None:
    said = rendered(tmp_path / "out", *B200, "count=1", "engine.version=1.3.0rc22")
    assert metas(tmp_path / "out")[0]["version_is_tested"] is False
    assert "1.3.0rc22 (untested)" in said.out


def test_the_baseline_comes_first_and_then_the_priors_order() -> None:
    found = renderings(study_to_render(B200), 10)
    assert [one.meta["proposed_by"] for one in found.chosen] == ["baseline", *["prior"] * 4]
    values = [one.meta["modelled_output_tokens_per_joule"] for one in found.chosen[1:]]
    # the best of each layout over GPUs before the second best of any
    assert values[0] == max(values)
    assert {one.meta["hardware"]["num_gpus"] for one in found.chosen[1:3]} == {1, 2}


def test_recipes_come_right_after_the_baseline(tmp_path: Path) -> None:
    database = tmp_path / "configs" / "database"
    recipe = {"tensor_parallel_size": 1, "max_batch_size": 96, "kv_cache_config": {"dtype": "fp8"}}
    (database / "openai").mkdir(parents=True)
    (database / "openai" / "one.yaml").write_text(yaml.safe_dump(recipe))
    row = {"model": "openai/gpt-oss-120b", "arch": "GptOssForCausalLM", "gpu": "B200_NVL", "isl": 1024, "osl": 1024,
           "concurrency": 64, "config_path": "examples/configs/database/openai/one.yaml", "num_gpus": 1}  # fmt: skip
    (database / "lookup.yaml").write_text(yaml.safe_dump([row]))
    found = renderings(study_to_render([*B200, f"search.recipes={tmp_path / 'configs'}"]), 2)
    assert [str(one.meta["proposed_by"]).partition(":")[0] for one in found.chosen] == ["baseline", "recipe"]
    assert yaml.safe_load(found.chosen[1].rendered.files["config.yaml"])["max_batch_size"] == 96


def test_configs_of_the_same_bytes_are_one_folder() -> None:
    found = renderings(study_to_render([*B200, "engine.knobs.stream_interval=[null,1]"]), 99)
    names = [one.name for one in found.chosen]
    assert len(names) == len(set(names)) == 5
    assert found.num_possible == 9  # the baseline, which sets no batching, among them


def test_more_than_there_are_is_all_and_says_so(tmp_path: Path) -> None:
    said = rendered(tmp_path / "out", *B200, "count=99")
    assert len(folders(tmp_path / "out")) == 5
    assert "there are no more than these, of count=99" in said.out


def test_rendering_again_changes_no_byte_and_deletes_nothing(tmp_path: Path) -> None:
    rendered(tmp_path / "out", *B200, "count=2")
    first = folders(tmp_path / "out")[0]
    (first / "engine.log").write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    rendered(tmp_path / "out", *B200, "count=2")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_the_script_asks_for_a_model_that_is_not_here_and_starts_one_that_is_given(tmp_path: Path) -> None:
    said = rendered(tmp_path / "out", *B200, "count=1")
    assert "openai/gpt-oss-120b is not on this machine: serve.sh asks for MODEL=DIR" in said.out
    [folder] = folders(tmp_path / "out")
    env = environment(install(tmp_path / "bin", "trtllm-serve"), tmp_path / "noted")
    without = run(folder / "serve.sh", env)
    assert (without.returncode != 0, calls(tmp_path / "noted")) == (True, [])
    assert "hf download openai/gpt-oss-120b" in without.stderr
    assert run(folder / "serve.sh", {**env, "MODEL": "/my models/x", "SERVE_PORT": "9000"}).returncode == 0
    [(program, _, *words)] = calls(tmp_path / "noted")
    assert program == "trtllm-serve"
    assert words == ["/my models/x", "--host", "127.0.0.1", "--port", "9000", "--config", f"{folder}/config.yaml"]


EAGLE = ("engine.knobs.speculative_config.decoding_type=Eagle3", "engine.knobs.speculative_config.max_draft_len=3")


@pytest.mark.parametrize(
    ("words", "program", "runs"),
    [
        (B200, "trtllm-serve", {}),
        (NVL72, "srun", {}),
        (SPLIT, "trtllm-serve", {"NUM_PROGRAMS": "3", "STAYS": "yes", "ENDS": "disaggregated"}),
    ],
)
def test_the_script_asks_for_a_draft_model_that_is_not_here(
    words: tuple[str, ...], program: str, runs: dict[str, str], tmp_path: Path
) -> None:
    said = rendered(tmp_path / "out", *words, *EAGLE, "count=3")
    draft = study_to_render(words).model.draft_models["Eagle3"]
    assert f"{draft} is not on this machine: serve.sh asks for DRAFT_MODEL=DIR" in said.out
    folder = next(one for one in folders(tmp_path / "out") if draft in (one / "serve.sh").read_text())
    assert_is_bash(folder / "serve.sh")
    machine = {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_JOB_NODELIST": "tray-[a-b]"}
    env = environment(install(tmp_path / "bin", program), tmp_path / "noted", MODEL="/models/x", **machine, **runs)
    without = run(folder / "serve.sh", env)
    assert (without.returncode != 0, calls(tmp_path / "noted")) == (True, [])
    assert f"hf download {draft}" in without.stderr
    run(folder / "serve.sh", {**env, "DRAFT_MODEL": "/drafts/a&b"})
    called = [word for call in calls(tmp_path / "noted") for word in call if word.endswith("config.filled.yaml")]
    assert called
    for path in called:
        assert yaml.safe_load(Path(path).read_text())["speculative_config"]["speculative_model"] == "/drafts/a&b"


def test_vllm_is_rendered_too(tmp_path: Path) -> None:
    words = ("engine=vllm", "model=llama-3.1-8b", "hardware=h100", "weights=checkpoint", "precision=bf16")
    rendered(tmp_path / "out", *words, "parallelism=single", "batching=default", "count=1")
    [folder] = folders(tmp_path / "out")
    assert_is_bash(folder / "serve.sh")
    env = environment(install(tmp_path / "bin", "python-of-vllm"), tmp_path / "noted", MODEL="/models/x")
    assert run(folder / "serve.sh", {**env, "PYTHON": "python-of-vllm"}).returncode == 0
    assert calls(tmp_path / "noted")[0][2:6] == ["-m", "vllm.entrypoints.cli.main", "serve", "/models/x"]
    assert metas(tmp_path / "out")[0]["version"] is None


def test_configs_over_several_machines_say_how_and_what_their_energy_is(tmp_path: Path) -> None:
    said = rendered(tmp_path / "out", *NVL72, "count=1")
    assert "8 on 2 machines" in said.out
    [meta] = metas(tmp_path / "out")
    assert meta["hardware"] == {"name": "gb200_nvl72", "num_gpus": 8, "num_nodes": 2}
    assert meta["measure"] is None
    script = (folders(tmp_path / "out")[0] / "serve.sh").read_text()
    assert "srun --nodes=2 --ntasks=8" in script
    assert "leaves the others out" in script
    tpw("render", *NVL72, "count=1", f"out={tmp_path / 'my out'}").assert_refused(2, "my out", "spaces")


def test_split_deployments_count_the_gpus_of_every_server(tmp_path: Path) -> None:
    said = rendered(tmp_path / "out", *SPLIT, "count=9")
    assert "generation:" in said.out
    found = metas(tmp_path / "out")
    assert {meta["hardware"]["num_gpus"] for meta in found} == {2, 3}  # type: ignore[index]
    for folder, meta in zip(folders(tmp_path / "out"), found, strict=True):
        assert_is_bash(folder / "serve.sh")
        assert {"context_config.yaml", "generation_config.yaml", "disagg.yaml"} < {p.name for p in folder.iterdir()}
        assert "Energy counts the GPUs of every server." in (folder / "serve.sh").read_text()
        gpus = next(word for word in str(meta["measure"]).split() if word.startswith("gpus="))
        assert len(gpus.split(",")) == meta["hardware"]["num_gpus"]  # type: ignore[index]


@pytest.mark.parametrize("words", [B200, SPLIT], ids=["one server", "split"])
def test_the_command_that_measures_it_is_a_study(words: tuple[str, ...]) -> None:
    [one] = renderings(study_to_render(words), 1).chosen
    tool, command, *rest = shlex.split(one.meta["measure"])
    assert (tool, command) == ("tpw", "measure")
    study = attached(rest).study
    assert (study.model.name, len(study.engine.gpus)) == ("gpt-oss-120b", one.meta["hardware"]["num_gpus"])


def test_no_two_folders_are_measured_as_one_case() -> None:
    """Though they differ in what the command does not declare: a knob, or being split into servers."""
    knobs = [*B200, "parallelism.tp=2", "batching.max_batch_size=64", "engine.knobs.num_postprocess_workers=[null,4]"]
    found = [*renderings(study_to_render(knobs), 9).chosen, *renderings(study_to_render(SPLIT), 9).chosen]
    studies = [attached(shlex.split(one.meta["measure"])[2:]).study for one in found]
    configs = [only_config(study) for study in studies]
    assert [config.knobs["rendered"] for config in configs] == [one.name for one in found]
    assert len({config.config_hash for config in configs}) == len({study.id for study in studies}) == len(found) >= 4
    for study in studies:
        assert find_engine(study).name == "attached"


def test_a_deployment_is_not_measured_on_some_of_its_gpus() -> None:
    words = shlex.split(renderings(study_to_render([*SPLIT, "disaggregation.generation.parallelism.tp=2"]), 1)
                        .chosen[0].meta["measure"])[2:]  # fmt: skip
    few = [word.replace("gpus=0,1,2", "gpus=0,1") if word.startswith("gpus=") else word for word in words]
    with pytest.raises(ConfigError, match=r"gpus=0,1: names 2 GPUs, and the deployment reserves num_gpus=3; name all"):
        attached(few)


@pytest.mark.parametrize("command", ["sweep", "plan", "measure", "repeatability"])
def test_split_servers_are_rendered_only(command: str) -> None:
    tpw(command, *SPLIT).assert_refused(2, "disaggregation=split", "rendered only", "tpw render")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["out=x"], ["model=", "tpw render"]),
        (["out=x", "model=gpt-oss-120b"], ["hardware="]),
        (["model=gpt-oss-120b", "hardware=b200"], ["out="]),
        ([*B200, "out=x", "count=0"], ["count=0", "from 1 on"]),
        ([*B200, "out=x", "count=many"], ["count=many"]),
        (["out=x", "model=gpt-oss-120b", "hardware=b2000"], ["b2000", "did you mean"]),
        (
            [*B200, "out=x", "engine.runtime=docker", "engine.image=trtllm:latest"],
            ["engine.image=trtllm:latest", "sha256"],
        ),
        (["out=x", "model=tiny-llama", "hardware=cpu"], ["hardware=cpu", "is no GPU"]),
        ([*B200, "engine=attached", "out=x"], ["attached"]),
        ([*B200, "out=x", "precision.weights=bf16"], ["gpt-oss-120b has no bf16 weights"]),
        (
            [*SPLIT, "out=x", "disaggregation.generation.knobs.stream_intervall=4", "parallelism.tp=1"],
            [
                "disaggregation.generation.knobs.stream_intervall: trtllm has no such knob",
                "did you mean 'stream_interval'?",
            ],
        ),
        ([*SPLIT, "out=x", "disaggregation.num_context_servers=9"], ["no feasible deployment", "9 x 1 GPUs"]),
        ([*NVL72, "out=x", "parallelism.tp=8", "parallelism.pp=3", "hardware.num_gpus_per_node=5"], ["multiple of 5"]),
    ],
)
def test_what_is_wrong_is_named(
    words: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tpw("render", *words).assert_refused(2, *parts)
    assert not (tmp_path / "x").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    tpw("render", *B200, f"out={tmp_path}").assert_refused(2, "thesis.tex", "no engine folder")
    tpw("render", *B200, f"out={tmp_path / 'thesis.tex'}").assert_refused(2, "is no folder")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    tpw("render", *B200, "count=1", "out=/proc/rendered").assert_refused(2, "out=/proc/rendered", "cannot be written")
