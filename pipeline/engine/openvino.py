"""The embedded engine's adapter: OpenVINO GenAI continuous batching on the CPU, served by embedded/server.py.

Setting names are those of OpenVINO GenAI 2026.4: `SchedulerConfig` and the CPU plugin's properties.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.engine.counters import OPENVINO, read_counters
from pipeline.engine.gguf_model import describe_model, prepare_model
from pipeline.engine.observed import CounterSample
from pipeline.engine.protocol import Availability, Rendered
from pipeline.engine.runtime.ask import ask
from pipeline.engine_config import EngineConfig, Value
from pipeline.errors import ConfigError, EngineError
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

WEIGHTS_INIT = "normal(0, 0.02), seed {}"
"""What tiny_gguf.py draws."""

FIX = "run `make .venv-openvino`, or set engine.python to a Python that has openvino-genai, aiohttp and gguf"

INFERENCE_PRECISION = {"fp32": "f32", "bf16": "bf16"}
KV_CACHE_PRECISION = ("u4", "u8", "f16", "bf16", "f32")
"""What the CPU plugin lists as supported, less u3; `auto` or null leaves it to the plugin."""

DEFAULT_CACHE_SIZE_GB = 1
DEFAULT_MAX_NUM_SEQS = 256
DEFAULT_MAX_NUM_BATCHED_TOKENS = 256
"""Defaults of SchedulerConfig."""


VERSION_TIMEOUT_S = 120.0

OUT_OF_MEMORY_SIGNS = (
    "bad_alloc",
    "cannot allocate memory",
    "larger than available memory",
    "out of memory",
    "was killed by SIGKILL",  # by the system's out-of-memory killer: the server kills it only after its own end
)


class OpenvinoEngine:
    """OpenVINO GenAI behind our own server; satisfies the Engine protocol."""

    name = "openvino"
    knobs = frozenset({"num_threads", "cache_size_gb", "enable_prefix_caching"})
    compile_line: re.Pattern[str] | None = None

    def availability(self, study: Study) -> Availability:
        """Ask the engine's Python for openvino_genai and its version."""
        code = "import aiohttp, gguf, numpy, openvino_genai; print(openvino_genai.__version__)"
        try:
            done = ask(study.engine, ("python", "-c", code), timeout_s=VERSION_TIMEOUT_S)
        except EngineError as error:
            return Availability(why_not=f"{error}; {FIX}")
        if done.returncode != 0:
            why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            return Availability(why_not=f"engine.python={study.engine.python} lacks the engine ({why}); {FIX}")
        return Availability(version=done.stdout.strip())

    def render(self, config: EngineConfig, study: Study) -> Rendered:
        """Turn a config into the server's command line.

        Raises:
            ConfigError: If the config asks for what OpenVINO GenAI on a CPU does not have, or weights are missing.
        """
        _check(config)
        argv = ["{python}", "{embedded}/server.py", "--model", "{model}", "--model-name", study.model.name]
        argv += ["--host", "{host}", "--port", "{port}"]
        argv += ["--scheduler", json.dumps(_scheduler(config, study)), "--plugin", json.dumps(_plugin(config))]
        return Rendered(
            files={"model.json": json.dumps(describe_model(study), indent=2) + "\n"},
            argv=tuple(argv),
            env=dict(study.engine.env),
            weights_init=WEIGHTS_INIT.format(study.weights_seed) if study.weights == "random" else None,
        )

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:  # noqa: ARG002  # one model for every config
        """Where the model lies, written first if it is random.

        Raises:
            ConfigError: If weights are missing.
            EngineError: If a random model cannot be written.
        """
        return {"model": str(prepare_model(study))}

    def ready_request(self, study: Study) -> dict[str, object]:
        """Two greedy tokens."""
        return {"model": study.model.name, "prompt": "a", "max_tokens": 2, "ignore_eos": True, "temperature": 0}

    def preflight(self, rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """Cannot tell without starting."""
        return None

    def tested_version(self, version: str) -> bool:  # noqa: ARG002  # our own
        """The server is ours, its environment is locked."""
        return True

    def doubts(self, config: EngineConfig, study: Study) -> Sequence[str]:  # noqa: ARG002  # no rule that only warns
        """None."""
        return ()

    def failure(self, log_lines: Sequence[str]) -> TrialStatus:
        """Out of memory if the log says so."""
        text = "\n".join(log_lines).lower()
        is_out_of_memory = any(sign.lower() in text for sign in OUT_OF_MEMORY_SIGNS)
        return TrialStatus.OUT_OF_MEMORY if is_out_of_memory else TrialStatus.START_FAILED

    def advice(self, log_lines: Sequence[str]) -> str | None:  # noqa: ARG002  # its messages speak for themselves
        """None."""
        return None

    def effective_config(self, log_lines: Sequence[str]) -> dict[str, str]:
        """The server's settings and OpenVINO's account of the compiled model, keyed `scheduler.*` and `compiled.*`."""
        text = "\n".join(log_lines) + "\n"
        settings = re.search(r"^effective: (.*)$", text, re.MULTILINE)
        found = _flatten(json.loads(settings[1])) if settings else {}
        compiled = re.search(r"^Model: LLM.*\n((?:  .*\n)*)", text, re.MULTILINE)
        for line in compiled[1].splitlines() if compiled else ():
            name, _, value = line.strip().partition(":")
            found[f"compiled.{name}"] = value.strip()
        return found

    def kernel_caches(self, environ: Mapping[str, str]) -> tuple[Path, ...]:  # noqa: ARG002  # compiled in memory
        """None: a model is compiled in memory, when it is loaded."""
        return ()

    def counters(self, url: str) -> CounterSample | None:
        """Its Prometheus metrics, those of the last step; it does not count preemptions."""
        return read_counters(url, OPENVINO)

    def constant_weights(self, log_lines: Sequence[str]) -> int | None:  # noqa: ARG002  # the log does not say
        """Not looked at."""
        return None


def _check(config: EngineConfig) -> None:
    """Refuse what this engine does not have.

    Raises:
        ConfigError: Naming key, value, what is allowed and the fix.
    """
    layout, precision = config.parallelism, config.precision
    if layout.num_gpus * layout.ep > 1 or layout.attention_dp:
        raise ConfigError("parallelism: engine=openvino runs on one CPU; set tp, pp and ep to 1, attention_dp to false")
    if precision.weights not in INFERENCE_PRECISION:
        allowed = ", ".join(INFERENCE_PRECISION)
        raise ConfigError(f"precision.weights={precision.weights}: engine=openvino computes in {allowed}")
    if precision.kv_cache not in {None, "auto", *KV_CACHE_PRECISION}:
        allowed = ", ".join(("auto", *KV_CACHE_PRECISION))
        raise ConfigError(f"precision.kv_cache={precision.kv_cache}: engine=openvino has {allowed}")
    if config.batching.kv_cache_fraction is not None:
        raise ConfigError(
            f"batching.kv_cache_fraction={config.batching.kv_cache_fraction}: engine=openvino sizes its KV cache in "
            "gigabytes; leave it null and set engine.knobs.cache_size_gb"
        )
    for name, value in config.knobs.items():
        if name not in OpenvinoEngine.knobs:
            allowed = ", ".join(sorted(OpenvinoEngine.knobs))
            raise ConfigError(f"engine.knobs.{name}: openvino has no such knob; allowed: {allowed}")
        if name == "enable_prefix_caching":
            if not isinstance(value, bool):
                raise ConfigError(f"engine.knobs.{name}={value}: must be true or false")
        elif type(value) is not int or value < 1:
            raise ConfigError(f"engine.knobs.{name}={value}: must be a whole number of at least 1")


def _scheduler(config: EngineConfig, study: Study) -> dict[str, Value]:
    """SchedulerConfig: what is set, and a KV cache of fixed size, so that every config has the same room.

    Raises:
        ConfigError: If the limits do not go together.
    """
    batching = config.batching
    num_seqs = batching.max_batch_size or DEFAULT_MAX_NUM_SEQS
    num_tokens = batching.max_num_tokens or DEFAULT_MAX_NUM_BATCHED_TOKENS
    if batching.chunked_prefill is False:
        needed = max(num_seqs, study.workload.max_seq_len_tokens)
        if num_tokens < needed:
            raise ConfigError(
                f"batching.max_num_tokens={num_tokens}: without chunked prefill a step holds a whole prompt and every "
                f"sequence, here {needed} tokens; raise it, lower batching.max_batch_size={num_seqs}, or set "
                "batching.chunked_prefill=true"
            )
    shares_prefix = study.workload.shared_prefix_tokens > 0
    settings = {
        "max_num_seqs": batching.max_batch_size,
        "max_num_batched_tokens": batching.max_num_tokens,
        "dynamic_split_fuse": batching.chunked_prefill,
        "cache_size": config.knobs.get("cache_size_gb", DEFAULT_CACHE_SIZE_GB),
        "enable_prefix_caching": config.knobs.get("enable_prefix_caching", shares_prefix or None),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _plugin(config: EngineConfig) -> dict[str, Value]:
    """Properties of the CPU plugin that are set."""
    kv_cache = None if config.precision.kv_cache == "auto" else config.precision.kv_cache
    properties = {
        "INFERENCE_PRECISION_HINT": INFERENCE_PRECISION[config.precision.weights],
        "KV_CACHE_PRECISION": kv_cache,
        "INFERENCE_NUM_THREADS": config.knobs.get("num_threads"),
    }
    return {name: value for name, value in properties.items() if value is not None}


def _flatten(values: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and texts."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": str(value)}
    return flat
