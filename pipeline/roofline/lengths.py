"""What the equations need of a workload's lengths: means, and how often a request is met by its length."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.lengths import Lengths, read_lengths
from pipeline.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanLengths:
    """Means over the requests of a workload.

    Attributes:
        isl_tokens: Prompt.
        osl_tokens: Output.
        context_tokens: Prompt and output so far of the requests that run at a moment: a request is met there as often
            as it has output tokens, and half through them on average.
        prompt_of_token_tokens: Length of the prompt that a prompt token belongs to: long prompts have more of them.
        request_rate_per_s: At which a schedule sends; None for the other arrivals.
    """

    isl_tokens: float
    osl_tokens: float
    context_tokens: float
    prompt_of_token_tokens: float
    request_rate_per_s: float | None = None

    @classmethod
    def equal(cls, isl_tokens: float, osl_tokens: float) -> "MeanLengths":
        """Those of requests that are all alike."""
        return cls(
            isl_tokens=isl_tokens, osl_tokens=osl_tokens, context_tokens=isl_tokens + osl_tokens / 2,
            prompt_of_token_tokens=isl_tokens,
        )  # fmt: skip

    @classmethod
    def of(cls, load: Workload) -> "MeanLengths":
        """Those of a workload: uniform lengths by their moments, a file's by its lines.

        Raises:
            ConfigError: If the file cannot be read, or is another than when the study was composed.
        """
        if load.lengths_file is not None:
            return _of_file(load.lengths_file, load.lengths_sha256, load.arrival)
        ratio = load.length_ratio_min
        mean, square = (1 + ratio) / 2, (1 + ratio + ratio**2) / 3  # of a uniform variable on [ratio, 1]
        isl_tokens, osl_tokens = load.isl_tokens * mean, load.osl_tokens * mean
        return cls(
            isl_tokens=isl_tokens,
            osl_tokens=osl_tokens,
            context_tokens=isl_tokens + load.osl_tokens * square / mean / 2,
            prompt_of_token_tokens=load.isl_tokens * square / mean,
        )


@lru_cache(maxsize=16)
def _of_file(path: str, sha256: str | None, arrival: str) -> MeanLengths:
    lengths = read_lengths(Path(path))
    if sha256 not in {None, lengths.sha256}:
        raise ConfigError(f"workload.lengths_file={path}: has changed since this study was composed; put it back")
    pairs = lengths.pairs
    isl_tokens, osl_tokens = sum(isl for isl, _ in pairs), sum(osl for _, osl in pairs)
    return MeanLengths(
        isl_tokens=isl_tokens / len(pairs),
        osl_tokens=osl_tokens / len(pairs),
        context_tokens=sum(osl * (isl + osl / 2) for isl, osl in pairs) / osl_tokens,
        prompt_of_token_tokens=sum(isl**2 for isl, _ in pairs) / isl_tokens,
        request_rate_per_s=_rate_per_s(lengths) if arrival == "schedule" else None,
    )


def _rate_per_s(lengths: Lengths) -> float | None:
    """Of a schedule that is sent over and over."""
    if lengths.at_s is None:
        return None
    return (len(lengths.at_s) - 1) / (lengths.at_s[-1] - lengths.at_s[0])
