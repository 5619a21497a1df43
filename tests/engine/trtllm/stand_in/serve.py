"""`trtllm-serve` of the stand-in: checks what the real one checks, takes its time, then serves."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web
from pydantic import ValidationError

from tests.engine.trtllm.stand_in.api import Api, describe_process
from tests.engine.trtllm.stand_in.behaviour import Behaviour, Fault, read_behaviour
from tests.engine.trtllm.stand_in.manifest import torch_llm_args
from tests.engine.trtllm.stand_in.options import merge, run
from tests.engine.trtllm.stand_in.power import PowerPublisher, gpu_numbers
from tests.engine.trtllm.stand_in.scheduler import Scheduler
from tests.engine.trtllm.stand_in.settings import OutOfMemoryError, Settings, resolve

BACKLOG = 1024
SHUTDOWN_S = 0.1
DEAF_SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def main() -> None:
    """Serve until told to stop; status 1 and a traceback's last line where it cannot."""
    run(sys.argv[1:], serve)


def serve(model: str, options: dict[str, Any], typed: dict[str, Any]) -> None:
    """One server, from its options and the keys that were typed."""
    behaviour = read_behaviour()
    print(f"[TensorRT-LLM] TensorRT LLM version: {version('tensorrt_llm')}", flush=True)
    try:
        args = merge(typed, options["config"], cli_wins=behaviour.cli_wins)
        torch_llm_args(version("tensorrt_llm"), behaviour.absent_keys)(model=model, **args)
    except ValidationError as error:
        die(f"pydantic_core._pydantic_core.ValidationError: {error}")
    except ValueError as error:
        die(f"ValueError: {error}")
    listener = bind(options["host"], options["port"])
    if behaviour.has(Fault.DEAF_CHILD, args):
        subprocess.Popen([sys.executable, "-S", "-c", DEAF_SLEEP], start_new_session=True)
    settings = load(Path(model), args, behaviour)
    asyncio.run(listen(listener, settings, args, behaviour, Path(model).name))


def bind(host: str, port: int) -> socket.socket:
    """Take the address before the model loads; nothing listens yet.

    Like the real one without SO_REUSEADDR, so that connections of an earlier server keep the port for a minute. Source:
    tensorrt_llm/commands/serve.py.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.bind((host, port))
    except OSError as error:
        die(f"RuntimeError: Failed to bind socket to {host}:{port}: {error}")
    return listener


def load(model: Path, args: dict[str, Any], behaviour: Behaviour) -> Settings:
    """Read the model folder, find room for it, tune; ends the process where the real one would die."""
    if not (model / "config.json").is_file():
        die(f"OSError: {model} does not appear to have a file named config.json.")
    if not (model / "tokenizer.json").is_file():
        die(f"OSError: Can't load tokenizer for '{model}'.")
    config = json.loads((model / "config.json").read_text())
    if behaviour.has(Fault.HANG_AT_START, args):
        time.sleep(600)
    if behaviour.has(Fault.DIE_AT_START, args):
        die("ImportError: libmpi.so.40: cannot open shared object file: No such file or directory")
    try:
        settings = resolve(args, config.get("max_position_embeddings", 131072), behaviour)
    except ValueError as error:
        die(f"ValueError: {error}")
    except OutOfMemoryError as error:
        die_out_of_memory(str(error))
    if behaviour.has(Fault.OUT_OF_MEMORY, args):
        die_out_of_memory("KV cache")
    tune(behaviour)
    gib = settings.kv_tokens / settings.num_gpus / 2**14
    log("Using Sampler: TorchSampler")
    log(f"AttentionRuntimeFeatures(chunked_prefill={settings.has_chunked_prefill}, "
        f"cache_reuse={settings.has_block_reuse}, has_speculative_draft_tokens={settings.draft_len > 0})")  # fmt: skip
    if settings.graph_batch_size:
        log("Creating CUDA graph instances for 1 batch sizes.")
        log(f"Run generation-only CUDA graph warmup for batch size={settings.graph_batch_size}, draft_len=0")
    print(f"[TensorRT-LLM][INFO] Number of tokens per block: {settings.tokens_per_block}.")
    print("[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).")
    print(f"[TensorRT-LLM][INFO] [MemUsageChange] Allocated {gib:.2f} GiB for max tokens in paged KV cache "
          f"({settings.kv_tokens}).")  # fmt: skip
    log(f"max_seq_len={settings.max_seq_len}, max_num_requests={settings.max_batch_size}, "
        f"max_num_tokens={settings.max_num_tokens}, max_batch_size={settings.max_batch_size}")  # fmt: skip
    return settings


def tune(behaviour: Behaviour) -> None:
    """Profile kernels, or read what an earlier start of the same wrote where TLLM_AUTOTUNER_CACHE_PATH says."""
    cache = os.environ.get("TLLM_AUTOTUNER_CACHE_PATH")
    is_tuned = cache is not None and Path(cache).is_file()
    log("[Autotuner] Autotuning process starts ...")
    if is_tuned:
        log(f"[Autotuner] Loading cache from {cache}")
    time.sleep(behaviour.tuned_start_s if is_tuned else behaviour.start_s)
    if cache is not None and not is_tuned:
        metadata = {"lib_version": version("tensorrt_llm"), "device_name": "NVIDIA H100 80GB HBM3"}
        Path(cache).write_text(json.dumps({"metadata": metadata, "shared": {}, "rank_0": {}}))
    log("[Autotuner] Autotuning process ends")


async def listen(
    listener: socket.socket, settings: Settings, args: dict[str, Any], behaviour: Behaviour, model: str
) -> None:
    """Serve until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    gpus = gpu_numbers(os.environ.get("CUDA_VISIBLE_DEVICES"), behaviour.num_gpus)[: settings.num_gpus]
    power = PowerPublisher(Path(behaviour.power_dir) if behaviour.power_dir else None, gpus)
    scheduler = Scheduler(settings, args, behaviour, power)
    api = Api(scheduler, args, model, version("tensorrt_llm"), power)
    api.refuses, api.is_unhealthy = (behaviour.has(fault, args) for fault in (Fault.REFUSE, Fault.UNHEALTHY))
    steps = asyncio.create_task(scheduler.run())
    # A client that leaves ends its handler at once; its request goes on until the server looks.
    runner = web.AppRunner(api.application(), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    print(describe_process(), "INFO:     Application startup complete.", sep="\n", flush=True)
    await told.wait()
    await runner.cleanup()
    steps.cancel()
    power.set_w(0.0)


def log(text: str) -> None:
    """A line in the shape of TensorRT-LLM's logger in Python."""
    stamp = datetime.now(UTC).strftime("%m/%d/%Y-%H:%M:%S")
    print(f"[{stamp}] [TRT-LLM] [I] {text}", flush=True)


def die(last_line: str) -> NoReturn:
    """End as Python does after an uncaught error."""
    print("Traceback (most recent call last):", last_line, sep="\n", flush=True)
    sys.exit(1)


def die_out_of_memory(component: str) -> NoReturn:
    """End for want of memory. Source: tensorrt_llm/_torch/pyexecutor/py_executor_creator.py."""
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    lines = ("Executor creation failed due to insufficient GPU memory.",
             f"The following component could not be created: {component}")  # fmt: skip
    die("RuntimeError: " + "\n".join(lines))


if __name__ == "__main__":
    main()
