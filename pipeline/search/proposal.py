"""What a search says next."""

from dataclasses import dataclass

from pipeline.engine_config import EngineConfig
from pipeline.record import Row

REPEAT = "repeat"
"""Who proposes the starts of `tpw repeatability`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A config to measure next, who proposed it, and usable rows it already has from an interrupted start."""

    config: EngineConfig
    proposed_by: str
    earlier_rows: tuple[Row, ...] = ()
