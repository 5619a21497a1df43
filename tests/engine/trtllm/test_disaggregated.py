"""A split deployment: its files, the GPUs of its servers, its rules, and a script that starts and ends all of it."""

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.disaggregation import Deployment, deployments
from pipeline.engine.attached import AttachedServer
from pipeline.engine.folder import write_definition
from pipeline.engine.trtllm.disaggregated import (
    Orchestrator,
    cannot_be_placed,
    num_machines,
    render_deployment,
    without_prompts,
)
from pipeline.engine.trtllm.manifest import find_manifest
from pipeline.engine.trtllm.placement import placed
from pipeline.engine.trtllm.versions import NEWEST
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError, EngineError
from pipeline.study import Study
from tests.builders import make_study
from tests.engine.http_server import serving
from tests.engine.trtllm.hand_run import after, assert_is_bash, calls, environment, install, run

BASE = (
    "model=gpt-oss-120b", "engine=trtllm", "precision=fp4", "precision.kv_cache=fp8", "parallelism=single",
    "batching=default", "workload=chat_1k_1k", "study=test", "disaggregation=split",
    "disaggregation.context.parallelism.tp=1", "disaggregation.context.parallelism.attention_dp=false",
    "disaggregation.context.parallelism.ep=1",
    "disaggregation.generation.parallelism.tp=2", "disaggregation.generation.parallelism.attention_dp=false",
    "disaggregation.generation.parallelism.ep=1", "disaggregation.generation.batching.max_batch_size=64",
    "disaggregation.num_context_servers=2", "disaggregation.num_generation_servers=1",
)  # fmt: skip


def study(*overrides: str, hardware: str = "b200") -> Study:
    return make_study(*BASE, f"hardware={hardware}", *overrides)


def only(asked: Study) -> Deployment:
    assert asked.disaggregation is not None
    [found] = deployments("trtllm", asked.axes, asked.disaggregation)
    return found


def files(asked: Study) -> dict[str, Any]:
    rendered = render_deployment(only(asked), asked).files
    return {name: yaml.safe_load(text) for name, text in rendered.items() if name.endswith(".yaml")}


def refusal(asked: Study) -> str:
    with pytest.raises(ConfigError) as raised:
        render_deployment(only(asked), asked)
    assert cannot_be_placed(only(asked), asked) == str(raised.value)
    return str(raised.value)


def written(folder: Path, asked: Study) -> Path:
    write_definition(folder, render_deployment(only(asked), asked), {}, wanted={"model": "set it"})
    return folder / "serve.sh"


def test_each_kind_of_server_has_its_own_arguments() -> None:
    found = files(study())
    context, generation = found["context_config.yaml"], found["generation_config.yaml"]
    assert (context["tensor_parallel_size"], generation["tensor_parallel_size"]) == (1, 2)
    assert (context["max_batch_size"], generation["max_batch_size"]) == (4, 64)
    assert context["disable_overlap_scheduler"] is True
    assert context["cuda_graph_config"] is None
    assert "disable_overlap_scheduler" not in generation
    assert generation["cuda_graph_config"]["max_batch_size"] == 64
    for one in (context, generation):
        assert one["cache_transceiver_config"] == {"backend": "DEFAULT", "max_tokens_in_buffer": 2048}
        assert one["kv_cache_config"]["dtype"] == "fp8"
        assert one["max_seq_len"] == 2048


def test_a_generation_server_needs_no_room_for_a_prompt() -> None:
    """Its 512 tokens a step hold no prompt of 1024, which only a server that reads prompts must take in one step."""
    asked = study()
    assert files(asked)["generation_config.yaml"]["max_num_tokens"] == 512 < asked.workload.isl_tokens
    seen = without_prompts(only(asked).generation, asked).workload
    assert (seen.isl_tokens, seen.max_seq_len_tokens) == (512, asked.workload.max_seq_len_tokens)


def test_the_orchestrator_knows_every_server() -> None:
    assert files(study())["disagg.yaml"] == {
        "hostname": "127.0.0.1", "port": 8000, "schedule_style": "context_first",
        "context_servers": {
            "num_instances": 2, "urls": ["127.0.0.1:8001", "127.0.0.1:8002"], "router": {"type": "round_robin"},
        },
        "generation_servers": {"num_instances": 1, "urls": ["127.0.0.1:8003"], "router": {"type": "round_robin"}},
    }  # fmt: skip


def test_a_router_by_cache_hashes_blocks_as_the_servers_do() -> None:
    knobs = [
        f"disaggregation.{kind}.knobs.kv_cache_config.{knob}"
        for kind in ("context", "generation")
        for knob in ("enable_block_reuse=true", "event_buffer_max_size=1024", "tokens_per_block=64")
    ]
    asked = study(*knobs, "disaggregation.router=kv_cache_aware")
    router = files(asked)["disagg.yaml"]["generation_servers"]["router"]
    assert router == {"type": "kv_cache_aware", "max_batch_size": 64, "tokens_per_block": 64}
    assert "keep no account of their KV cache" in refusal(study("disaggregation.router=kv_cache_aware"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_instances": 3}, "2 urls for num_instances=3"),
        ({"urls": ["127.0.0.1:8003", "127.0.0.1:8002"]}, "a server is given twice"),
        ({"tensor_parallel_size": 2}, "Extra inputs are not permitted"),
    ],
)
def test_its_file_is_checked(change: dict[str, Any], complaint: str) -> None:
    content = files(study())["disagg.yaml"]
    Orchestrator.model_validate(content)
    content["context_servers"] |= change
    with pytest.raises(ValidationError, match=complaint):
        Orchestrator.model_validate(content)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["disaggregation.context.knobs.cache_transceiver_config.backend=UCX"], "is of both kinds"),
        (["disaggregation.context.parallelism.cp=2"], "context parallelism (Helix) is for generation servers only"),
        (["disaggregation.context.knobs.kv_cache_config.tokens_per_block=64"], "64 on context and 32 on generation"),
        (["disaggregation.cache_transceiver.max_tokens_in_buffer=1000"], "whole blocks of 32 tokens; use 1024"),
        (["disaggregation.generation.knobs.max_beam_width=2"], "beam width of 1"),
        (
            ["disaggregation.generation.knobs.speculative_config.decoding_type=MTP"],
            "none on context and MTP on generation",
        ),
        (
            ["disaggregation.cache_transceiver.runtime=PYTHON", "disaggregation.cache_transceiver.backend=UCX"],
            "works over NIXL only, not UCX",
        ),
        (["disaggregation.schedule_style=generation_first"], "needs disaggregation.cache_transceiver.runtime=PYTHON"),
        (
            ["engine.version=1.2.0", "disaggregation.context.knobs.disable_overlap_scheduler=false"],
            "TensorRT-LLM 1.2.0 refuses requests to context servers",
        ),
        (["engine.port=65533"], "engine.port=65533: its 3 servers take the next ports"),
        (["disaggregation.num_context_servers=7"], "7 x 1 GPUs for contexts and 1 x 2 for generation do not fit the 8"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], part: str) -> None:
    assert part in refusal(study(*overrides))


def test_part_of_a_machine_is_enough_where_no_more_may_be_used() -> None:
    assert num_machines(only(study("hardware.num_gpus=4")), study("hardware.num_gpus=4")) == 1
    assert "do not fit the 3" in refusal(study("hardware.num_gpus=3"))


def test_what_goes_together_is_taken() -> None:
    python = study(
        "disaggregation.schedule_style=generation_first", "disaggregation.cache_transceiver.runtime=PYTHON"
    )  # fmt: skip
    assert files(python)["disagg.yaml"]["schedule_style"] == "generation_first"
    transceiver = files(python)["context_config.yaml"]["cache_transceiver_config"]
    assert transceiver["transceiver_runtime"] == "PYTHON"
    overlapping = study("disaggregation.context.knobs.disable_overlap_scheduler=false")
    assert files(overlapping)["context_config.yaml"]["disable_overlap_scheduler"] is False


def test_a_prompt_that_is_no_whole_block_is_rounded_up() -> None:
    asked = study("workload.isl_tokens=1000")
    assert files(asked)["context_config.yaml"]["cache_transceiver_config"]["max_tokens_in_buffer"] == 2048


SIZES = st.sampled_from([1, 2, 4, 8, 16])


@settings(max_examples=60)
@given(num_context=st.integers(1, 6), num_generation=st.integers(1, 6), context=SIZES, generation=SIZES)
def test_no_two_servers_share_a_gpu(num_context: int, num_generation: int, context: int, generation: int) -> None:
    def config(tp: int) -> EngineConfig:
        return EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": tp})

    deployment = Deployment(
        context=config(context), num_context_servers=num_context,
        generation=config(generation), num_generation_servers=num_generation,
    )  # fmt: skip
    hardware = study(hardware="gb200_nvl72").hardware
    if deployment.num_gpus > hardware.num_gpus:
        with pytest.raises(ConfigError, match="do not fit the 72"):
            placed(deployment, hardware, 8001)
        return
    servers = placed(deployment, hardware, 8001)
    gpus = [(node, gpu) for server in servers for node in server.nodes for gpu in server.gpus]
    assert len(set(gpus)) == len(gpus) == deployment.num_gpus
    assert {gpu for _, gpu in gpus} <= set(range(4))
    assert max(node for node, _ in gpus) + 1 == -(-deployment.num_gpus // 4)
    assert len({server.port for server in servers}) == len(servers) == num_context + num_generation
    for server in servers:
        assert len(server.nodes) * len(server.gpus) == server.config.parallelism.num_gpus
        assert list(server.nodes) == list(range(server.nodes[0], server.nodes[-1] + 1))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_file_of_the_default_axes_is_of_the_manifest(data: st.DataObject) -> None:
    asked = make_study(
        "model=gpt-oss-120b", "hardware=b200", "engine=trtllm", "precision=fp4", "parallelism=single",
        "batching=default", "workload=chat_1k_1k", "study=test", "disaggregation=split",
    )  # fmt: skip
    split = asked.disaggregation
    assert split is not None
    context, generation = (
        EngineConfig.from_axes(
            "trtllm", {key: data.draw(st.sampled_from(values)) for key, values in {**asked.axes, **own}.items()
                       if key.startswith("precision.") or key in own},
        )
        for own in (split.context, split.generation)
    )  # fmt: skip
    deployment = Deployment(
        context=context, num_context_servers=data.draw(st.sampled_from(split.num_context_servers)),
        generation=dataclasses.replace(generation, precision=context.precision), num_generation_servers=1,
    )  # fmt: skip
    try:
        rendered = render_deployment(deployment, asked).files
    except ConfigError:
        return
    for kind in ("context", "generation"):
        args = yaml.safe_load(rendered[f"{kind}_config.yaml"])
        args.pop("cuda_graph_config", None) if args.get("cuda_graph_config", {}) is None else None
        assert find_manifest(NEWEST).problems(args) == []
    Orchestrator.model_validate(yaml.safe_load(rendered["disagg.yaml"]))


def test_the_script_gives_every_server_gpus_of_its_own(tmp_path: Path) -> None:
    script = written(tmp_path / "my engine", study())
    assert_is_bash(script)
    env = environment(install(tmp_path / "bin", "trtllm-serve"), tmp_path / "noted", MODEL="/my models/a'b")
    done = run(script, {**env, "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c,GPU-d,GPU-e", "NUM_PROGRAMS": "4",
                        "ENDS": "disaggregated", "STAYS": "yes"})  # fmt: skip
    assert (done.returncode, "a server has ended" in done.stderr) == (1, True)
    orchestrator, *servers = sorted(calls(tmp_path / "noted"), key=lambda call: after([*call, "--port", "0"], "--port"))
    folder = f"{tmp_path}/my engine"
    assert orchestrator[2:] == ["disaggregated", "-c", f"{folder}/disagg.yaml", "-t", "1800", "-r", "7200"]
    assert [call[1] for call in servers] == ["GPU-c", "GPU-d", "GPU-a,GPU-b"]
    assert {call[2] for call in servers} == {"/my models/a'b"}
    assert [after(call, "--port") for call in servers] == ["8001", "8002", "8003"]
    configs = [after(call, "--config") for call in servers]
    assert configs == [f"{folder}/{kind}_config.yaml" for kind in ("context", "context", "generation")]
    assert [call[-1] for call in servers] == ["stopped"] * 3  # when one ends, all do
    assert {path.name for path in (tmp_path / "my engine").iterdir() if path.is_dir()} == {
        "context-0", "context-1", "generation-0",
    }  # fmt: skip


def test_ending_the_script_ends_its_servers(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", study())
    env = environment(install(tmp_path / "bin", "trtllm-serve"), tmp_path / "noted", MODEL="/models/x", STAYS="yes")
    with subprocess.Popen([str(script)], env=env, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while len(calls(tmp_path / "noted")) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 143
    assert [call[-1] for call in calls(tmp_path / "noted")] == ["stopped"] * 4


def test_too_few_gpus_start_nothing(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", study())
    env = environment(install(tmp_path / "bin", "trtllm-serve"), tmp_path / "noted", MODEL="/models/x")
    done = run(script, {**env, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert (done.returncode, calls(tmp_path / "noted")) == (2, [])
    assert "needs 4 GPUs, and CUDA_VISIBLE_DEVICES names 2" in done.stderr


def test_over_several_machines_each_server_is_a_step_on_its_own(tmp_path: Path) -> None:
    asked = study(
        "disaggregation.context.parallelism.tp=2", "disaggregation.generation.parallelism.tp=8", hardware="gb200_nvl72"
    )
    assert num_machines(only(asked), asked) == 3
    script = written(tmp_path / "engine", asked)
    assert_is_bash(script)
    programs = install(tmp_path / "bin", "srun", "scontrol")
    env = environment(programs, tmp_path / "noted", MODEL="/models/x", SLURM_JOB_NODELIST="tray-[a-d]")
    assert run(script, {**env, "ENDS": "disaggregated", "NUM_PROGRAMS": "4", "STAYS": "yes"}).returncode == 1
    found = {after([*call, "--port", "0"], "--port"): call[2:] for call in calls(tmp_path / "noted")}
    assert found["8003"][:6] == [
        "--overlap", "--nodelist=tray-a,tray-b", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--mpi=pmix",
    ]  # fmt: skip
    assert [word for word in found["8003"] if word.startswith("CUDA")] == ["CUDA_VISIBLE_DEVICES=0,1,2,3"]
    assert found["8001"][:3] == ["--overlap", "--nodelist=tray-c", "--nodes=1"]
    devices = [[word for word in found[port] if word.startswith("CUDA")] for port in ("8001", "8002")]
    assert devices == [["CUDA_VISIBLE_DEVICES=0,1"], ["CUDA_VISIBLE_DEVICES=2,3"]]
    assert "trtllm-llmapi-launch" in found["8001"]
    filled = Orchestrator.model_validate(yaml.safe_load((tmp_path / "engine" / "disagg.filled.yaml").read_text()))
    assert filled.context_servers.urls == ["tray-c:8001", "tray-c:8002"]
    assert filled.generation_servers.urls == ["tray-a:8003"]
    assert f"{tmp_path}/engine/disagg.filled.yaml" in found["0"]


def test_machines_that_are_called_like_others_numbers_are_told_apart(tmp_path: Path) -> None:
    asked = study("disaggregation.num_context_servers=6", "disaggregation.context.parallelism.tp=4",
                  "disaggregation.generation.parallelism.tp=4", hardware="gb200_nvl72")  # fmt: skip
    names = [f"node{number}" for number in range(1, 8)]
    script = written(tmp_path / "engine", asked)
    programs = install(tmp_path / "bin", "srun", "scontrol")
    (programs / "scontrol").write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(names) + "\n")
    env = environment(programs, tmp_path / "noted", MODEL="/models/x", SLURM_JOB_NODELIST="node[1-7]")
    run(script, {**env, "ENDS": "disaggregated", "NUM_PROGRAMS": "8", "STAYS": "yes"})
    filled = Orchestrator.model_validate(yaml.safe_load((tmp_path / "engine" / "disagg.filled.yaml").read_text()))
    urls = [*filled.context_servers.urls, *filled.generation_servers.urls]
    assert sorted(url.partition(":")[0] for url in urls) == names


def test_outside_an_allocation_it_says_which_one_it_needs(tmp_path: Path) -> None:
    asked = study("disaggregation.generation.parallelism.tp=8", hardware="gb200_nvl72")
    script = written(tmp_path / "engine", asked)
    done = run(
        script, environment(install(tmp_path / "bin", "srun", "scontrol"), tmp_path / "noted", MODEL="/models/x")
    )
    assert done.returncode != 0
    assert "salloc --nodes=3 --gpus-per-node=4" in done.stderr


def test_an_orchestrator_lists_no_model_and_can_be_measured_all_the_same() -> None:
    with serving({}) as url, AttachedServer(url) as server:
        assert server.served_model("gpt-oss-120b") == "gpt-oss-120b"
        with pytest.raises(EngineError, match="/v1/models answers HTTP 404"):
            server.served_model()


def test_equal_input_gives_equal_bytes() -> None:
    asked = study()
    once, again = render_deployment(only(asked), asked), render_deployment(only(dataclasses.replace(asked)), asked)
    assert once == again
    assert once.rendered_hash == again.rendered_hash
