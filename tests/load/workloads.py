"""Small workloads for tests."""

from pipeline.study import Workload

VOCAB_SIZE = 1000


def workload(isl_tokens: int = 6, osl_tokens: int = 6, length_ratio_min: float = 0.8, seed: int = 0) -> Workload:
    """A workload of the given lengths."""
    return Workload(
        name="test", source="tests", isl_tokens=isl_tokens, osl_tokens=osl_tokens,
        length_ratio_min=length_ratio_min, concurrency=(1,), seed=seed,
    )  # fmt: skip
