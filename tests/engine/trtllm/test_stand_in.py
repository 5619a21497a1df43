"""The stand-in answers, refuses and fails as TensorRT-LLM does, in what we read of it."""

import asyncio
import dataclasses
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import psutil
import pytest
import yaml
from pydantic import ValidationError

from pipeline.engine.catalog import refusal
from pipeline.engine.counters import read_any_counters
from pipeline.engine.process import free_port
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.trtllm.log import advice
from pipeline.engine.trtllm.versions import LISTED
from pipeline.engine_config import EngineConfig, Precision
from pipeline.load.client import LoadClient
from pipeline.vocabulary import TrialStatus
from pipeline.workload import OperatingPoint
from tests.builders import make_study
from tests.engine.trtllm.stand_in.behaviour import Behaviour, Fault, read_behaviour
from tests.engine.trtllm.stand_in.environment import checkpoint, stand_in_environment
from tests.engine.trtllm.stand_in.gpus import ServedGpu
from tests.engine.trtllm.stand_in.manifest import torch_llm_args
from tests.engine.trtllm.stand_in.options import command, merge, rows, run
from tests.engine.trtllm.stand_in.power import STALE_S, PowerFile, PowerPublisher, gpu_numbers, gpu_uuid
from tests.engine.trtllm.stand_in.running import HF_CONFIG, MODEL, READY_S, ask, running, start, wait_ready
from tests.engine.trtllm.stand_in.scheduler import Scheduler
from tests.engine.trtllm.stand_in.settings import OutOfMemoryError, Settings, resolve

NEWEST = LISTED[-1]
COMMON = (
    "model=gpt-oss-120b", "hardware=b200", "engine=trtllm", "precision=auto", "parallelism=auto", "batching=auto",
    "workload=chat_1k_1k", "plan=quick",
)  # fmt: skip
FULL = (*COMMON[1:], "precision.weights=fp4", "space=full")
INSTRUMENTED = {
    "max_batch_size": 4, "enable_iter_perf_stats": True, "enable_energy_metrics": True, "return_perf_metrics": True,
    "perf_metrics_max_requests": 100,
}  # fmt: skip
ENGINE = TrtllmEngine()


# --- arguments


def test_unknown_keys_and_values_are_refused_at_every_level() -> None:
    accept = torch_llm_args(NEWEST)
    accept(
        model="m", max_batch_size=8, cuda_graph_config=None, kv_cache_config={"dtype": "fp8"}, env_overrides={"A": "1"}
    )
    for args, key, says in (
        ({"tp_size": 2}, "tp_size", "Extra inputs are not permitted"),
        ({"kv_cache_config": {"fraction": 0.5}}, "kv_cache_config.fraction", "Extra inputs are not permitted"),
        ({"moe_config": {"backend": "MAGIC"}}, "moe_config.backend", "Input should be 'AUTO'"),
        ({"stream_interval": "often"}, "stream_interval", "valid integer"),
        ({"moe_config": None}, "moe_config", "valid dictionary"),
        ({"cuda_graph_config": {"batch_sizes": [1, 2], "max_batch_size": 4}}, "", "not the largest of batch_sizes"),
    ):
        with pytest.raises(ValidationError) as refused:
            accept(model="m", **args)
        (error,) = refused.value.errors()
        assert says in error["msg"]
        if key:
            assert key.split(".") == list(map(str, error["loc"]))[: key.count(".") + 1]


def test_a_version_has_its_own_keys() -> None:
    graphs = {"encoder_cuda_graph_config": {"max_batch_size": 4}, "enable_energy_metrics": True}
    torch_llm_args(NEWEST)(**graphs)
    for version, absent in (("1.2.0", "enable_energy_metrics"), ("1.3.0rc21", "encoder_cuda_graph_config")):
        with pytest.raises(ValidationError, match=absent):
            torch_llm_args(version)(**graphs)
    with pytest.raises(ValidationError, match="max_batch_size"):
        torch_llm_args(NEWEST, ("max_batch_size",))(max_batch_size=1)


@pytest.mark.parametrize("model", ["gpt-oss-120b", "deepseek-r1"])
def test_what_we_render_of_our_space_is_taken_by_each_version(model: str) -> None:
    study, draw = make_study(*FULL, f"model={model}"), np.random.default_rng(0)
    first = {key: options[0] for key, options in study.axes.items()}
    for version in ("1.2.0", "1.3.0rc14", *LISTED):
        of_version = dataclasses.replace(study, engine=dataclasses.replace(study.engine, version=version))
        num_taken, accept = 0, torch_llm_args(version)
        for _ in range(40):
            changed = draw.permutation(list(first))[:5]
            drawn = {str(key): study.axes[key][draw.integers(len(study.axes[key]))] for key in changed}
            config = EngineConfig.from_axes("trtllm", first | drawn)
            if refusal(ENGINE, config, of_version) is None:
                accept(model="m", **yaml.safe_load(ENGINE.render(config, of_version).files["config.yaml"]))
                num_taken += 1
        assert num_taken >= 10, version


def test_the_adapter_finds_it_and_asks_it_beforehand(tmp_path: Path) -> None:
    python = stand_in_environment(tmp_path, "1.3.0rc21", Behaviour(absent_keys=("max_seq_len",)))
    study = make_study(*COMMON, f"engine.python={python}", "engine.version=1.3.0rc21")
    assert ENGINE.availability(study).version == "1.3.0rc21"
    rendered = ENGINE.render(EngineConfig(engine="trtllm", precision=Precision(weights="fp4")), study)
    refused = ENGINE.preflight(rendered, study, {"model": str(tmp_path)})
    assert refused is not None
    assert "TensorRT-LLM 1.3.0rc21 refuses config.yaml: max_seq_len=" in refused
    Behaviour().write(tmp_path)
    taken = dataclasses.replace(rendered, env=rendered.env | {"ASKED": "again"})
    assert ENGINE.preflight(taken, study, {"model": str(tmp_path)}) is None


def parsed(*argv: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    found: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    with pytest.raises(SystemExit, match="0"):
        run(list(argv), lambda model, options, typed: found.append((model, options, typed)))
    return found[0]


def test_serve_may_be_left_out_and_defaults_are_not_typed() -> None:
    for argv in (("m", "--port", "81"), ("serve", "m", "--port", "81")):
        model, options, typed = parsed(*argv)
        assert (model, options["host"], options["port"], typed) == ("m", "localhost", 81, {})
        assert options["max_batch_size"] == 2048
    with pytest.raises(SystemExit, match="disaggregated"):
        run(["disaggregated"], lambda *_: None)


def test_every_option_is_taken_by_each_of_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        name for parameter in command(lambda *_: None).params for name in (*parameter.opts, *parameter.secondary_opts)
    ]
    assert len(rows()) == 47
    for alias in ("--config", "--extra_llm_api_options", "--tp_size", "--ep_size", "--no-telemetry", "--cp_size"):
        assert alias in names
    _, options, typed = parsed(
        "m", "--tp_size", "4", "--kv_cache_free_gpu_memory_fraction", "0.5", "--kv_cache_dtype", "fp8",
        "--no-telemetry", "--enable_attention_dp", "--extra_llm_api_options", "f.yaml",
    )  # fmt: skip
    assert options["config"] == "f.yaml"
    assert typed == {
        "tensor_parallel_size": 4, "kv_cache_config": {"free_gpu_memory_fraction": 0.5, "dtype": "fp8"},
        "telemetry_config": {"disabled": True}, "enable_attention_dp": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("m", "--load_format", "dummy"), "No such option '--load_format'"),
        (("m", "--port", "many"), "'many' is not a valid integer"),
        (("m", "--kv_cache_dtype", "int8"), "'int8' is not one of"),
        ((), "Missing argument 'MODEL'"),
    ],
)
def test_a_wrong_command_line_is_refused_as_click_does(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], says: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(list(argv), lambda *_: None)
    assert says in capsys.readouterr().err


def test_what_was_typed_beats_the_file_or_the_other_way_round(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("max_batch_size: 8\nkv_cache_config: {dtype: fp8}\n")
    typed = {"max_batch_size": 4, "kv_cache_config": {"free_gpu_memory_fraction": 0.5}}
    cache = {"dtype": "fp8", "free_gpu_memory_fraction": 0.5}
    assert merge(typed, str(file), cli_wins=True) == {"max_batch_size": 4, "kv_cache_config": cache}
    assert merge(typed, str(file), cli_wins=False) == {"max_batch_size": 8, "kv_cache_config": cache}
    assert merge(typed, None, cli_wins=True) == typed
    file.write_text("- a list\n")
    for name in (file, tmp_path / "missing.yaml"):
        with pytest.raises(ValueError, match=name.name):
            merge({}, str(name), cli_wins=True)


# --- what it resolves to


def settings(behaviour: Behaviour | None = None, **args: Any) -> Settings:
    return resolve(args, 4096, behaviour or Behaviour())


def test_configs_differ_in_speed_and_power() -> None:
    plain = settings()
    assert settings(tensor_parallel_size=4).step_s(64, 0) < plain.step_s(64, 0)
    assert settings(moe_config={"backend": "TRTLLM"}).step_s(64, 0) < plain.step_s(64, 0)
    assert settings(cuda_graph_config=None).step_s(1, 0) > plain.step_s(1, 0)
    assert settings(cuda_graph_config={"max_batch_size": 32}).step_s(64, 0) > plain.step_s(64, 0)
    assert settings(disable_overlap_scheduler=True).step_s(64, 0) > plain.step_s(64, 0)
    assert plain.step_s(1, 0) < plain.step_s(64, 0) < 64 * plain.step_s(1, 0)
    assert plain.active_w(1) < plain.active_w(64)
    assert settings(kv_cache_config={"dtype": "fp8"}).kv_tokens == pytest.approx(2 * plain.kv_tokens, rel=1e-4)
    assert (settings(max_batch_size=8, tensor_parallel_size=4, enable_attention_dp=True).max_requests) == 32


def test_what_does_not_fit_is_refused() -> None:
    tight = Behaviour(weight_bytes=150 * 2**30)
    with pytest.raises(OutOfMemoryError):
        settings(tight)
    assert settings(tight, tensor_parallel_size=2).kv_tokens > 4096
    with pytest.raises(ValueError, match="exceeds the 8 GPUs"):
        settings(tensor_parallel_size=16)
    with pytest.raises(ValueError, match="moe_tp_size"):
        settings(tensor_parallel_size=4, moe_expert_parallel_size=3)


# --- the scheduler


def stepped(args: dict[str, Any], *requests: tuple[int, int], num_aborted: int = 0) -> Scheduler:
    """A scheduler that has served these requests (prompt and output tokens)."""

    async def serve() -> Scheduler:
        scheduler = Scheduler(settings(**args), args, Behaviour(), PowerPublisher(None, [0]))
        sequences = [scheduler.submit(*request) for request in requests]
        for sequence in sequences[:num_aborted]:
            sequence.is_aborted = True
        steps = asyncio.create_task(scheduler.run())
        for sequence in sequences[num_aborted:]:
            while await sequence.chunks.get() < sequence.output_tokens:
                pass
        await asyncio.sleep(0)  # the step is noted after its tokens
        steps.cancel()
        return scheduler

    return asyncio.run(serve())


def test_a_batch_holds_what_its_limits_allow() -> None:
    args = {"max_batch_size": 2, "tensor_parallel_size": 8, "perf_metrics_max_requests": 10}
    scheduler = stepped(args, (8, 3), (8, 3), (8, 3))
    active = [stats["numActiveRequests"] for stats in scheduler.iterations]
    assert active == [2, 2, 2, 1, 1, 1]
    assert [stats["numQueuedRequests"] for stats in scheduler.iterations] == [1, 1, 1, 0, 0, 0]
    totals = scheduler.totals
    assert [totals[name] for name in ("requests", "prompt_tokens", "generation_tokens")] == [3, 24, 9]
    assert totals["ttft_s"] > totals["queue_s"] > 0
    assert [
        stats["numActiveRequests"] for stats in stepped(args | {"enable_attention_dp": True}, *[(8, 1)] * 3).iterations
    ] == [3]
    full = stepped(
        {"tensor_parallel_size": 8, "kv_cache_config": {"max_tokens": 4096}}, (2000, 2), (2000, 2), (2000, 2)
    )
    assert [stats["numActiveRequests"] for stats in full.iterations] == [2, 2, 1, 1]


def test_long_prompts_wait_for_room_in_a_step_or_are_cut() -> None:
    limits = {"max_num_tokens": 100, "tensor_parallel_size": 8}
    whole = [stats["inflightBatchingStats"]["numCtxTokens"] for stats in stepped(limits, (80, 1), (80, 1)).iterations]
    assert whole == [80, 80]
    cut = stepped(limits | {"enable_chunked_prefill": True}, (80, 1), (80, 1)).iterations
    assert [stats["inflightBatchingStats"]["numCtxTokens"] for stats in cut] == [100, 60]


def test_chunks_come_every_stream_interval_and_at_both_ends() -> None:
    async def heard(**args: Any) -> list[int]:
        scheduler = Scheduler(settings(**args), args, Behaviour(), PowerPublisher(None, [0]))
        sequence = scheduler.submit(4, 8)
        steps = asyncio.create_task(scheduler.run())
        counts = [await sequence.chunks.get()]
        while counts[-1] < 8:
            counts.append(await sequence.chunks.get())
        steps.cancel()
        return counts

    assert asyncio.run(heard()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert asyncio.run(heard(stream_interval=3)) == [1, 3, 6, 8]
    assert len(asyncio.run(heard(speculative_config={"max_draft_len": 3}))) < 5


def test_an_aborted_request_is_dropped() -> None:
    assert stepped({"tensor_parallel_size": 8}, (4, 2), (4, 2), num_aborted=1).totals["requests"] == 1


# --- power


def test_the_fake_gpu_draws_what_is_published(tmp_path: Path) -> None:
    gpu = ServedGpu(tick_s=0.01, power_file=PowerFile(tmp_path, 0))
    assert (gpu.counter_mj(0.0) - gpu.energy_at_start_mj, gpu.power_w(0.0)) == (0, 76)
    power = PowerPublisher(tmp_path, [0])
    power.set_w(200.0)
    assert gpu.power_w(0.0) == 276
    time.sleep(0.05)
    power.set_w(0.0)
    active_j = PowerFile(tmp_path, 0).read()[0]
    assert active_j >= 200 * 0.05
    assert gpu.counter_mj(1.0) - gpu.energy_at_start_mj == pytest.approx(1e3 * (76 + active_j), abs=1)
    assert power.total_j() > active_j
    PowerPublisher(tmp_path, [0]).set_w(50.0)
    assert PowerFile(tmp_path, 0).read() == (active_j, 50.0)
    time.sleep(STALE_S)
    assert gpu.power_w(0.0) == 76


def test_gpus_are_named_by_index_or_uuid() -> None:
    assert gpu_numbers(None, 2) == [0, 1]
    assert gpu_numbers(f"{gpu_uuid(3)},{gpu_uuid(10)}", 16) == [3, 10]
    assert gpu_numbers("1,0", 2) == [1, 0]


# --- one server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("server"), config=INSTRUMENTED) as address:
        yield address


def asked(url: str, **body: Any) -> tuple[int, Any]:
    status, text = ask(f"{url}/v1/completions", {"model": "m", "prompt": [1, 2, 3]} | body)
    return status, text if body.get("stream") else json.loads(text)


def test_our_client_reads_its_stream(url: str) -> None:
    workload = dataclasses.replace(make_study().workload, isl_tokens=16, osl_tokens=8, length_ratio_min=1.0)
    with LoadClient(url, "m", workload, 100, OperatingPoint(concurrency=3)) as load:
        deadline = time.monotonic() + READY_S
        while load.snapshot().num_completed < 6:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    done = [record for record in load.records() if record.end_ns is not None]
    assert [record.error for record in done] == [None] * len(done)
    assert all(list(record.event_tokens)[-1] == record.osl_tokens for record in done)
    assert all(len(record.event_tokens) == record.osl_tokens for record in done)


def test_it_is_known_by_its_list_of_models_and_answers_health(url: str) -> None:
    assert ask(f"{url}/health") == (200, "")
    assert ask(f"{url}/health_generate")[0] == 200
    assert json.loads(ask(f"{url}/version")[1]) == {"version": NEWEST}
    (card,) = json.loads(ask(f"{url}/v1/models")[1])["data"]
    assert (card["id"], card["owned_by"]) == ("tiny-gpt", "tensorrt_llm")
    assert ask(f"{url}/nowhere")[0] == 404


def test_the_adapters_ready_request_generates(url: str) -> None:
    status, answer = asked(url, **ENGINE.ready_request(make_study()))
    assert status == 200
    assert (answer["choices"][0]["text"], answer["usage"]["completion_tokens"]) == (" t t", 2)


def test_a_stream_has_usage_where_it_is_asked_for(url: str) -> None:
    def events(**options: Any) -> list[Any]:
        _, text = asked(url, max_tokens=2, ignore_eos=True, stream=True, **options)
        lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert lines.pop() == "[DONE]"
        return [(event["usage"] or {}).get("completion_tokens") for event in map(json.loads, lines)]

    assert events() == [None, None]
    assert events(stream_options={"include_usage": True}) == [None, None, 2]
    assert events(stream_options={"include_usage": True, "continuous_usage_stats": True}) == [1, 2, 2]


def test_a_chat_opens_with_the_role(url: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "ignore_eos": True}
    assert json.loads(ask(f"{url}/v1/chat/completions", body)[1])["choices"][0]["message"]["content"] == " t t"
    first, *others = ask(f"{url}/v1/chat/completions", body | {"stream": True})[1].strip().split("\n\n")
    assert '"delta": {"role": "assistant"}' in first
    assert len(others) == 3


def test_what_it_does_not_take_is_status_400(url: str) -> None:
    assert asked(url, min_p=0.1, top_k=3, max_tokens=1)[0] == 200
    for body, says in (
        ({"no_such_field": 1}, "no_such_field"), ({"stream_options": {}, "prompt": []}, "prompt"),
        ({"stream_options": {"include_usage": True}}, "stream is true"), ({"prompt": None}, "prompt"),
        ({"max_tokens": 4096}, "max_seq_len"), ({"max_tokens": 0}, "max_seq_len"),
    ):  # fmt: skip
        status, answer = asked(url, **body)
        assert status == 400
        assert says in str(answer)


def test_without_ignore_eos_it_ends_earlier(url: str) -> None:
    for body, num_tokens, why in (
        ({}, 4, "stop"), ({"ignore_eos": True}, 8, "length"), ({"min_tokens": 8}, 8, "length"),
        ({"min_tokens": 6}, 6, "stop"),
    ):  # fmt: skip
        _, answer = asked(url, max_tokens=8, **body)
        assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (num_tokens, why)


def test_statistics_are_gone_once_read(url: str) -> None:
    asked(url, max_tokens=3, ignore_eos=True)
    stats = json.loads(ask(f"{url}/metrics")[1])
    assert stats[-1]["numCompletedRequests"] == 1
    assert {"kvCacheStats", "inflightBatchingStats", "iterLatencyMS", "numQueuedRequests"} <= stats[-1].keys()
    timing = json.loads(ask(f"{url}/perf_metrics")[1])[-1]["perf_metrics"]["timing_metrics"]
    assert (
        timing["arrival_time"]
        <= timing["first_scheduled_time"]
        < timing["first_token_time"]
        < timing["last_token_time"]
    )
    assert [ask(f"{url}/{path}") for path in ("metrics", "perf_metrics")] == [(200, "[]")] * 2


def test_counters_and_energy_go_up(url: str) -> None:
    before = json.loads(ask(f"{url}/energy_metrics")[1])
    asked(url, max_tokens=4, ignore_eos=True)
    after = json.loads(ask(f"{url}/energy_metrics")[1])
    assert after["total_energy_j"] > before["total_energy_j"]
    assert after["query_time"] > before["query_time"]
    sample = read_any_counters(url)
    assert sample is not None
    assert (sample.num_running, sample.num_waiting, sample.kv_cache_use) == (0, 0, 0)


# --- how it starts, and fails


def test_the_port_is_taken_before_it_listens_and_kernels_are_tuned_once(tmp_path: Path) -> None:
    port, cache = free_port("127.0.0.1"), tmp_path / "autotuner.json"
    env = {"TLLM_AUTOTUNER_CACHE_PATH": str(cache)}
    slow = Behaviour(start_s=600, tuned_start_s=0)
    first = start(tmp_path / "first", "--port", str(port), behaviour=slow, env=env)
    try:
        assert first.stdout is not None
        while "Autotuning process starts" not in first.stdout.readline():
            assert first.poll() is None
        with pytest.raises(URLError, match="Connection refused"):
            ask(f"http://localhost:{port}/health")
        second = start(tmp_path / "second", "--port", str(port), behaviour=Behaviour(faults={Fault.DIE_AT_START: {}}))
        assert f"RuntimeError: Failed to bind socket to localhost:{port}" in second.communicate()[0]
        assert second.returncode == 1
    finally:
        first.kill()
        first.communicate()
    cache.write_text("{}")
    with running(tmp_path / "first", behaviour=slow, env=env):
        pass  # it would have taken ten minutes
    cache.unlink()
    with running(tmp_path / "first", behaviour=dataclasses.replace(slow, start_s=0), env=env) as url:
        assert json.loads(cache.read_text())["metadata"]["lib_version"] == NEWEST
        for path, empty in {"metrics": (200, "[]"), "perf_metrics": (200, "[]")}.items():
            assert ask(f"{url}/{path}") == empty
        assert [ask(f"{url}/{path}")[0] for path in ("energy_metrics", "prometheus/metrics")] == [503, 404]


DYING = {
    "out of memory": (Fault.OUT_OF_MEMORY, {}, TrialStatus.OUT_OF_MEMORY, "kv_cache_fraction"),
    "dies": (Fault.DIE_AT_START, {}, TrialStatus.START_FAILED, "MPI is missing"),
    "too large": (None, {"tensor_parallel_size": 1}, TrialStatus.OUT_OF_MEMORY, "raise parallelism.tp"),
    "unknown key": (None, {"tensor_parallel_size": 2, "odd": 1}, TrialStatus.START_FAILED, "odd is no argument"),
    "no such layout": (None, {"tensor_parallel_size": 9}, TrialStatus.START_FAILED, None),
}
"""Fault, settings, how the adapter takes it, and a part of what it advises."""


def test_what_dies_at_the_start_says_why_as_the_adapter_reads_it(tmp_path: Path) -> None:
    def begin(name: str, fault: Fault | None, config: dict[str, Any]) -> subprocess.Popen[str]:
        behaviour = Behaviour(weight_bytes=0 if fault else 90 * 2**30, faults={fault: {}} if fault else {})
        return start(tmp_path / name, "--port", str(free_port("127.0.0.1")), behaviour=behaviour, config=config)

    begun = {name: begin(name, fault, config) for name, (fault, config, *_) in DYING.items()}
    for name, process in begun.items():
        output, _ = process.communicate(timeout=READY_S)
        _, _, status, advised = DYING[name]
        assert process.returncode == 1
        assert ENGINE.failure(output.splitlines()) is status, name
        found = advice(output.splitlines())
        assert found is None if advised is None else advised in (found or ""), output


def test_a_model_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    for missing in ("tokenizer.json", "config.json"):
        (checkpoint(tmp_path / missing / MODEL, HF_CONFIG) / missing).unlink()
        output, _ = start(tmp_path / missing, "--port", str(free_port("127.0.0.1"))).communicate(timeout=READY_S)
        assert ("named config.json" if missing == "config.json" else "Can't load tokenizer") in output


def test_it_hangs_at_the_start_until_it_is_killed(tmp_path: Path) -> None:
    process = start(
        tmp_path, "--port", str(free_port("127.0.0.1")), behaviour=Behaviour(faults={Fault.HANG_AT_START: {}})
    )
    try:
        assert process.stdout is not None
        assert "version" in process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    finally:
        process.kill()
        process.communicate()


def test_faults_come_with_the_settings_they_are_told_for(tmp_path: Path) -> None:
    told = Behaviour(faults={
        Fault.REFUSE: {}, Fault.COMPILE: {"max_batch_size": 4}, Fault.SLOW: {"kv_cache_config.dtype": "fp8"},
    })  # fmt: skip
    told.write(tmp_path)
    read = read_behaviour(tmp_path)
    assert read == told
    config = {"max_batch_size": 4, "kv_cache_config": {"dtype": "auto"}}
    assert [read.has(fault, config) for fault in (Fault.REFUSE, Fault.COMPILE, Fault.SLOW, Fault.CRASH)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_one_that_refuses_and_one_that_is_never_healthy(tmp_path: Path) -> None:
    with running(tmp_path / "a", behaviour=Behaviour(faults={Fault.REFUSE: {}})) as url:
        assert asked(url)[0] == 400
        assert ask(f"{url}/health_generate")[0] == 500
    with running(tmp_path / "b", behaviour=Behaviour(faults={Fault.UNHEALTHY: {}})) as url:
        assert [ask(f"{url}/{path}")[0] for path in ("health", "health_generate")] == [503, 500]


def test_under_load_it_is_slow_compiles_kernels_dies_and_leaves_a_child(tmp_path: Path) -> None:
    faults = (Fault.SLOW, Fault.COMPILE, Fault.CRASH, Fault.DEAF_CHILD)
    told = Behaviour(faults={fault: {} for fault in faults}, crash_after_tokens=4, slow_step_s=0.1)
    port = free_port("127.0.0.1")
    process = start(tmp_path, "--port", str(port), behaviour=told)
    try:
        wait_ready(url := f"http://localhost:{port}", process)
        (child,) = psutil.Process(process.pid).children()
        began_s = time.monotonic()
        assert asked(url, max_tokens=3, ignore_eos=True)[0] == 200
        assert time.monotonic() - began_s >= 3 * 0.1
        with pytest.raises(OSError, match=r"closed connection|reset"):
            asked(url, max_tokens=3, ignore_eos=True)
        assert process.wait(READY_S) == 1
        child.terminate()
        with pytest.raises(psutil.TimeoutExpired):
            child.wait(0.2)
    finally:
        process.kill()
        child.kill()
        output, _ = process.communicate(timeout=READY_S)
    assert ENGINE.compile_line is not None
    told_lines = [line for line in output.splitlines() if "JIT Cache Missing" in line]
    assert [line for line in told_lines if not ENGINE.compile_line.search(line)] == []
    assert len(told_lines) == 5  # a step each
    assert "illegal memory access" in output


def test_its_log_says_what_the_adapter_reads(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    process = start(tmp_path, "--port", str(port), config={"max_batch_size": 16, "max_seq_len": 2048})
    try:
        wait_ready(f"http://localhost:{port}", process)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=READY_S)
    effective = ENGINE.effective_config(output.splitlines())
    assert (effective["max_batch_size"], effective["max_seq_len"], effective["max_num_tokens"]) == (
        "16",
        "2048",
        "8192",
    )
    assert int(effective["measured.kv_cache_size_tokens"]) > 1e5
    assert (effective["sampler"], effective["chunked_prefill"], effective["block_reuse"]) == (
        "TorchSampler", "False", "True",
    )  # fmt: skip
    assert (effective["largest_cuda_graph"], effective["measured.autotuner"]) == ("128", "tuned")
