"""Start the stand-in's `trtllm-serve` as a process, and ask it."""

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.engine.process import free_port
from tests.engine.trtllm.stand_in.behaviour import Behaviour
from tests.engine.trtllm.stand_in.environment import checkpoint, stand_in_environment

MODEL = "tiny-gpt"
HF_CONFIG = {"max_position_embeddings": 4096}
READY_S = 30.0


def start(
    folder: Path,
    *options: str,
    behaviour: Behaviour | None = None,
    config: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start it in an environment of its own below a folder; `config` is its YAML file. It prints into a pipe."""
    model = folder / MODEL
    if not model.exists():
        checkpoint(model, HF_CONFIG)
    python = stand_in_environment(folder / "env", behaviour=behaviour)
    argv = [str(python.parent / "trtllm-serve"), str(model), *options]
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
        argv += ["--config", str(folder / "config.yaml")]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | dict(env or {})
    )


@contextlib.contextmanager
def running(folder: Path, **told: Any) -> Iterator[str]:
    """A server that is ready; yields its address, and expects it to end when it is told to."""
    port = free_port("127.0.0.1")
    process = start(folder, "--port", str(port), **told)
    try:
        wait_ready(url := f"http://localhost:{port}", process)
        yield url
        process.terminate()
        output, _ = process.communicate(timeout=READY_S)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.communicate()


def wait_ready(url: str, process: subprocess.Popen[str]) -> None:
    """Wait until it answers; it refuses connections until it has loaded.

    Raises:
        TimeoutError: If it ends first, or does not answer.
    """
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(f"{url}/version")
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    process.kill()
    raise TimeoutError(process.communicate()[0])


def ask(url: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
    """Status and text of what it answers to GET, or to POST with a body."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())  # noqa: S310  # http
    try:
        with urllib.request.urlopen(request, timeout=READY_S) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
