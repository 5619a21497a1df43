"""Would TensorRT-LLM take this config.yaml? Asked of its own `TorchLlmArgs`, before a start is paid for.

The package is imported in its own runtime (10 to 60 s, most of it reading libraries from disk) and the file goes the
way it goes at a start, up to where weights would be read: pipeline/engine/side/trtllm_llm_args.py.

Found in its sources. Importing it needs the driver's libcuda, so a container must be given its GPUs. What validation
asks of a GPU: its count (`gpus_per_node`), and its compute capability where the CuTe DSL kernels or pipeline
parallelism are asked for (llmapi/llm_args.py). TRT_LLM_NO_LIB_INIT=1 leaves out the custom operators and one
initialisation of MPI, which validation does not need (_bootstrap.py, before that _common.py). The package prints a
banner and logs to standard output, so the answer is a marked line.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.folder import filled
from pipeline.engine.protocol import Rendered
from pipeline.engine.runtime.ask import ask
from pipeline.engine.runtime.protocol import ALL_GPUS, Mount
from pipeline.engine.side.trtllm_llm_args import MARK
from pipeline.errors import EngineError
from pipeline.study import EngineSettings, Study

CONFIG_FILE = "config.yaml"
SCRIPT = Path(__file__).parents[1] / "side" / "trtllm_llm_args.py"

TIMEOUT_S = 300.0
"""Importing TensorRT-LLM reads gigabytes of libraries, at first from a cold disk or over the network."""

ENV = {"TRT_LLM_NO_LIB_INIT": "1", "HF_HUB_OFFLINE": "1"}

MAX_PROBLEMS, MAX_VALUE_CHARS, MAX_MESSAGE_CHARS = 3, 60, 300
"""What one line can hold; TensorRT-LLM's longest messages are paragraphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What TensorRT-LLM said about a config.

    Attributes:
        version: Its version; None if it could not be imported.
        problem: What it refuses and why, in one line; None if it refuses nothing.
        unknown: Why it could not be asked, or could not answer without what is missing here; None if it did.
    """

    version: str | None = None
    problem: str | None = None
    unknown: str | None = None


_answers: dict[tuple[object, ...], Preflight] = {}


def preflight(rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:
    """What TensorRT-LLM refuses of a config, or None if it takes it or cannot be asked; once per rendered hash.

    Args:
        rendered: What would be started.
        study: Names the runtime.
        places: Values of the placeholders in it.
    """
    return ask_llm_args(rendered, study.engine, places).problem


def ask_llm_args(rendered: Rendered, settings: EngineSettings, places: Mapping[str, str]) -> Preflight:
    """Ask TensorRT-LLM about a config, or remember what it said.

    Args:
        rendered: What would be started.
        settings: Name the runtime.
        places: Values of the placeholders in it; `model` is the model's folder.
    """
    key = (settings.runtime, settings.python, settings.image, rendered.rendered_hash, tuple(sorted(places.items())))
    if key not in _answers:
        _answers[key] = _ask(rendered, settings, places)
    return _answers[key]


def _ask(rendered: Rendered, settings: EngineSettings, places: Mapping[str, str]) -> Preflight:
    env = {name: filled(value, places) for name, value in rendered.env.items()} | ENV
    try:
        answer = ask(
            settings,
            ("python", "-c", SCRIPT.read_text("utf-8"), places["model"]),
            timeout_s=TIMEOUT_S,
            mounts=tuple(Mount(path=Path(value)) for value in places.values() if Path(value).is_absolute()),
            env=env,
            text_in=filled(rendered.files[CONFIG_FILE], places),
            gpus=ALL_GPUS,
        )
    except EngineError as error:
        return Preflight(unknown=str(error))
    marked = [line for line in answer.stdout.splitlines() if line.startswith(MARK)]
    if not marked:
        last = (answer.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return Preflight(unknown=f"ended with status {answer.returncode}: {last}")
    return _read(json.loads(marked[-1].removeprefix(MARK)))


def _read(said: Mapping[str, Any]) -> Preflight:
    problems = said["problems"]
    texts = [_problem(problem) for problem in problems[:MAX_PROBLEMS]]
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    name = f"TensorRT-LLM {said['version']}" if said["version"] else "TensorRT-LLM"
    return Preflight(
        version=said["version"],
        problem=f"{name} refuses {CONFIG_FILE}: {'; '.join([*texts, *more])}" if problems else None,
        unknown=said["unknown"],
    )


def _problem(problem: Mapping[str, Any]) -> str:
    """One refusal: key, value, and what TensorRT-LLM says is allowed."""
    message = _short(problem["message"], MAX_MESSAGE_CHARS)
    if not problem["key"]:
        return message
    value = problem["value"]
    text = value if isinstance(value, str) else json.dumps(value)
    given = "" if value is None else f"={_short(text, MAX_VALUE_CHARS)}"
    return f"{problem['key']}{given}: {message}"


def _short(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[: max_chars - 3]}..."
