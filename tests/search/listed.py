"""An order of configs that a test chooses, in the place of what the model expects."""

from collections.abc import Sequence

from pipeline.engine_config import EngineConfig
from pipeline.search.prior import Prior
from pipeline.study import Study


class Listed(Prior):
    """Expects less of each config than of the one before it, and nothing in particular of those not listed."""

    def __init__(self, study: Study, order: Sequence[EngineConfig] = ()) -> None:
        super().__init__(study, order)
        self._order = list(order)

    def value(self, config: EngineConfig) -> float:
        return 1 / (1 + self._order.index(config)) if config in self._order else 1e-3

    def ranked(self) -> list[EngineConfig]:
        return self._order
