"""Watts of one board from what its parts do."""

from pipeline.roofline import constants
from pipeline.roofline.memory import published
from pipeline.roofline.step import Step
from pipeline.study import Hardware


def board_power_w(hardware: Hardware, step: Step) -> float:
    """Mean power of one device over a step, between idle power and board limit.

    A part counts as used while its work goes on, at whatever efficiency.

    Raises:
        ConfigError: If the hardware's idle power or limit is not set.
    """
    idle_w, limit_w = published(hardware, "idle_power_w"), published(hardware, "board_power_w")
    share = constants.POWER_SHARES[hardware.arch]
    use = share.busy * step.time_s + share.memory * step.memory_s + share.compute * step.compute_s
    return idle_w + (limit_w - idle_w) * min(1.0, use / step.time_s)
