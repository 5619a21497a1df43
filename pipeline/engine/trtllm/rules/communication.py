"""How ranks add their partial results: allreduce strategies and what each needs."""

from pipeline.engine.trtllm.rules.rule import Rule, any_knob, knob, shown, text
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

NAME = "allreduce_strategy"


def _user_buffers(config: EngineConfig, _: Study) -> str | None:
    if text(config, NAME) != "UB":
        return None
    is_compiled = any_knob(config, "torch_compile_config.") is not None
    if is_compiled and knob(config, "torch_compile_config.enable_userbuffers") is not False:
        return None
    return (
        f"{shown(config, NAME)}: user buffers are set up by torch.compile only; "
        "set torch_compile_config.enable_userbuffers=true, or use AUTO"
    )


def _mnnvl(config: EngineConfig, study: Study) -> str | None:
    is_one_domain = "nvl72" in study.hardware.name
    if text(config, NAME) == "MNNVL" and not is_one_domain:
        return (
            f"{shown(config, NAME)}: needs NVLink across machines with Arm CPUs (GB200 or GB300 NVL72), and is AUTO on "
            f"{study.hardware.name}; use AUTO"
        )
    if text(config, NAME) == "MNNVL" and config.parallelism.cp > 1:
        return f"{shown(config, NAME)}: is AUTO with context parallelism; use AUTO"
    return None


def _low_precision(config: EngineConfig, study: Study) -> str | None:
    if text(config, NAME) == "LOWPRECISION" and study.hardware.link_bandwidth_bytes_per_s is not None:
        return (
            f"{shown(config, NAME)}: is for GPUs without NVLink and rounds what it adds; {study.hardware.name} has "
            "NVLink; use AUTO"
        )
    return None


def _alone(config: EngineConfig, _: Study) -> str | None:
    if text(config, NAME, "AUTO") != "AUTO" and config.parallelism.tp == 1:
        return f"{shown(config, NAME)}: nothing is added up with tp=1; leave it out"
    return None


RULES = (
    Rule(
        name="allreduce_ub", kind="refuses", check=_user_buffers,
        source="_torch/pyexecutor/model_engine.py, _init_userbuffers; _torch/distributed/ops.py, 1.0 to newest",
    ),
    Rule(
        name="allreduce_mnnvl", kind="warns", check=_mnnvl,
        source="_torch/distributed/ops.py, MNNVLAllReduce.is_mnnvl, 1.1 to newest",
    ),
    Rule(
        name="allreduce_lowprecision", kind="warns", check=_low_precision,
        source="_torch/distributed/ops.py, AllReduce, 1.0 to newest",
    ),
    Rule(
        name="allreduce_alone", kind="warns", check=_alone,
        source="_torch/distributed/ops.py, AllReduce.forward, 1.0 to newest",
    ),
)  # fmt: skip
