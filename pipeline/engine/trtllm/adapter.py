"""TensorRT-LLM: `trtllm-serve` from its own environment, every setting in one YAML file.

The command line carries only model, address and the file's name: until mid-2026 a setting given in both places was
silently taken from the file, since then from the command line (PR 14812).
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.engine.availability import installed_version
from pipeline.engine.counters import TRTLLM, read_counters
from pipeline.engine.kernels import cache_dirs, folder, home_dir
from pipeline.engine.model_dir import checkpoint_dir, checkpoint_for, draft_dir, random_model_dir
from pipeline.engine.observed import CounterSample
from pipeline.engine.protocol import Availability, Rendered
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.trtllm import environment
from pipeline.engine.trtllm.knobs import Knobs
from pipeline.engine.trtllm.llm_args import DECODING_TYPE, ENV, INSTRUMENTS, draft_model, llm_args
from pipeline.engine.trtllm.log import COMPILE_LINE, OUT_OF_MEMORY, advice, resolved
from pipeline.engine.trtllm.marks import marks
from pipeline.engine.trtllm.preflight import preflight
from pipeline.engine.trtllm.rules import broken_rule, doubts
from pipeline.engine.trtllm.versions import CONFIG_OPTION_SINCE, NEWEST, check_supported, is_before, is_tested
from pipeline.engine.trtllm.yaml_text import yaml_text
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus

CONFIG_FILE = "config.yaml"

ALWAYS = {
    "HF_HUB_OFFLINE": "1",  # models are always local folders
    "TRTLLM_NO_USAGE_STATS": "1",  # tensorrt_llm/usage/usage_lib.py; older releases send nothing
    "TLLM_AUTOTUNER_CACHE_PATH": "{engine_dir}/autotuner_cache.json",  # _torch/autotuner.py
}
"""Environment of every server."""

WEIGHTS_INIT = (
    "TensorRT-LLM load_format=dummy: every tensor from seed 0, uniform within 0.001 of 0; 8-bit ones within 3 of 0, "
    "packed 4-bit ones from 0 to 64"
)
"""Source: _torch/pyexecutor/model_loader.py, _initialize_dummy_weights. It is for smoke tests: such small weights draw
less power than a checkpoint's."""


class TrtllmEngine:
    """Satisfies the Engine protocol."""

    name = "trtllm"
    knobs = Knobs()
    compile_line: re.Pattern[str] | None = COMPILE_LINE

    def availability(self, study: Study) -> Availability:
        """Ask engine.python for TensorRT-LLM's version; on this machine `trtllm-serve` must be there too."""
        settings = study.engine
        remedy = "set engine.python to an interpreter that has TensorRT-LLM, e.g. that of NVIDIA's container"
        found = installed_version(settings, "tensorrt_llm", remedy)
        if found.version is None or settings.runtime != "local":
            return found
        if shutil.which(find_runtime(settings).program("trtllm-serve")) is not None:
            return found
        return Availability(
            why_not=f"engine.python={settings.python} has tensorrt_llm, but trtllm-serve is neither beside it nor on "
            "the PATH; set engine.python to the interpreter of the environment that trtllm-serve was installed in"
        )

    def render(self, config: EngineConfig, study: Study) -> Rendered:
        """Turn a config into `trtllm-serve` and its YAML file.

        Raises:
            ConfigError: If the config asks for what TensorRT-LLM cannot do, or the model has no such weights.
        """
        version = study.engine.version or NEWEST
        check_supported(version)
        is_random = study.weights == "random"
        (_check_random if is_random else _check_checkpoint)(config, study)
        args = llm_args(config, study)
        if not study.engine.allow_unknown:
            _check_environment(config)
        if (reason := broken_rule(config, study)) is not None:
            raise ConfigError(reason)
        option = "--extra_llm_api_options" if is_before(version, CONFIG_OPTION_SINCE) else "--config"
        argv = (
            "{bin}/trtllm-serve", "{model}", "--host", "{host}", "--port", "{port}", option, "{dir}/" + CONFIG_FILE,
        )  # fmt: skip
        return Rendered(
            files={CONFIG_FILE: yaml_text(args)},
            argv=argv,
            env=ALWAYS | environment.environment(config) | study.engine.env,
            weights_init=WEIGHTS_INIT if is_random else None,
            is_dummy_weights=is_random,
            warnings=marks(config),
            is_instrumented=study.engine.instrumented and not INSTRUMENTS.keys() <= config.knobs.keys(),
        )

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:
        """The folders of the model, written first if its weights are random, and of its draft model if it has one.

        Raises:
            ConfigError: If weights are missing; names the ways out.
        """
        if study.weights == "random":
            return {"model": str(random_model_dir(study))}
        found = {"model": str(checkpoint_dir(study, config.precision.weights, with_tokenizer=True))}
        draft = draft_model(config, study)
        return found if draft is None else found | {"draft_model": str(draft_dir(draft))}

    def ready_request(self, study: Study) -> dict[str, object]:
        """Two tokens after eight: a prefill and a decode step."""
        return {"model": study.model.name, "prompt": list(range(8)), "max_tokens": 2, "ignore_eos": True}

    def preflight(self, rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:
        """Ask TensorRT-LLM's own TorchLlmArgs."""
        return preflight(rendered, study, places)

    def tested_version(self, version: str) -> bool:
        """Whether the list of arguments is that of this very release."""
        return is_tested(version)

    def doubts(self, config: EngineConfig, study: Study) -> Sequence[str]:
        """The rules that only warn."""
        return doubts(config, study)

    def failure(self, log_lines: Sequence[str]) -> TrialStatus:
        """Out of memory if any line says so."""
        out_of_memory = any(OUT_OF_MEMORY.search(line) for line in log_lines)
        return TrialStatus.OUT_OF_MEMORY if out_of_memory else TrialStatus.START_FAILED

    def advice(self, log_lines: Sequence[str]) -> str | None:
        """What TensorRT-LLM's users have run into."""
        return advice(log_lines)

    def effective_config(self, log_lines: Sequence[str]) -> dict[str, str]:
        """What TensorRT-LLM logged that it resolved."""
        return resolved(log_lines)

    def kernel_caches(self, environ: Mapping[str, str]) -> tuple[Path, ...]:
        """What PyTorch uses, and its own DeepGEMM's. Source: tensorrt_llm/deep_gemm/compiler.cuh."""
        return cache_dirs(environ, folder(environ, "TRTLLM_DG_CACHE_DIR", home_dir(environ) / ".tensorrt_llm"))

    def counters(self, url: str) -> CounterSample | None:
        """Its joules and its Prometheus text, which it serves only if asked to; no token is counted as it is made."""
        return read_counters(url, TRTLLM)

    def constant_weights(self, log_lines: Sequence[str]) -> int | None:  # noqa: ARG002  # always a checkpoint
        """A checkpoint is not looked at."""
        return None


def _check_checkpoint(config: EngineConfig, study: Study) -> None:
    asked = config.precision.weights
    if checkpoint_for(study.model, asked).format == "bf16" and asked != "bf16":
        raise ConfigError(
            f"precision.weights={asked}: {study.model.name} has no {asked} checkpoint, and engine=trtllm does not "
            "quantise as it loads; add one to model.checkpoints, or use bf16"
        )


def _check_random(config: EngineConfig, study: Study) -> None:
    """Check that TensorRT-LLM can make up the weights that are asked for.

    Raises:
        ConfigError: If it cannot.
    """
    asked, decoding_type = config.precision.weights, config.knobs.get(DECODING_TYPE)
    native = ((study.model.hf_config or {}).get("quantization_config") or {}).get("quant_method", "bf16")
    if checkpoint_for(study.model, asked).format != native:
        raise ConfigError(
            f"precision.weights={asked}: with weights=random engine=trtllm makes those of model.hf_config, which are "
            f"{native}; use the precision that is, or weights=checkpoint"
        )
    if study.weights_seed:
        raise ConfigError(f"weights_seed={study.weights_seed}: engine=trtllm always draws from seed 0; leave it out")
    if decoding_type is not None:
        raise ConfigError(
            f"engine.knobs.{DECODING_TYPE}={decoding_type}: with weights=random no draft would ever be accepted; "
            "leave it out, or set weights=checkpoint"
        )


def _check_environment(config: EngineConfig) -> None:
    """Check the knobs that are variables of the environment.

    Raises:
        ConfigError: If one is unknown, or takes no such value.
    """
    for name, value in config.knobs.items():
        if name.startswith(ENV) and (problem := environment.problem(name, value)) is not None:
            raise ConfigError(problem)
