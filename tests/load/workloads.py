"""Small workloads for tests."""

from typing import Any

from pipeline.load.sequence import Sequence
from pipeline.workload import Workload

VOCAB_SIZE = 1000


def workload(
    isl_tokens: int = 6, osl_tokens: int = 6, length_ratio_min: float = 0.8, seed: int = 0, **other: Any
) -> Workload:
    """A workload of the given lengths."""
    return Workload(
        name="test", source="tests", isl_tokens=isl_tokens, osl_tokens=osl_tokens,
        length_ratio_min=length_ratio_min, seed=seed, **other,
    )  # fmt: skip


def sequence(
    isl_tokens: int = 6,
    osl_tokens: int = 6,
    length_ratio_min: float = 0.8,
    seed: int = 0,
    vocab_size: int = VOCAB_SIZE,
    **other: Any,
) -> Sequence:
    """The requests of such a workload."""
    return Sequence(
        seed=seed, vocab_size=vocab_size, isl_tokens=isl_tokens, osl_tokens=osl_tokens,
        length_ratio_min=length_ratio_min, **other,
    )  # fmt: skip
