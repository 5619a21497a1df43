"""The one seeded request sequence that every configuration replays (common random numbers).

Request i depends on the workload's seed and i alone, so two configurations meet the same requests in the same
order. The first wave of a closed loop starts in the middle of its life: each slot draws an age from the stationary
distribution (the prompt is lengthened by it, the output shortened), so that context lengths and phases are stationary
at once and the slots do not finish together.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

VOCAB_RANGE = (0.01, 0.95)
"""Part of the vocabulary that prompts are drawn from: special tokens sit at either end of every one in conf/model."""

_PREFIX_STREAM = 2
"""Sets the draw of the shared prefix apart from those of requests, which are seeded by (seed, index)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to send.

    Attributes:
        index: Position in the sequence.
        prompt: Token ids [isl_tokens].
        osl_tokens: Output length asked for.
        age_tokens: Tokens by which the prompt was lengthened, unless cut, and the output shortened.
    """

    index: int
    prompt: npt.NDArray[np.int64]
    osl_tokens: int
    age_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A workload's requests, as plain values: the processes that send them know no more.

    Attributes:
        seed: Of everything drawn.
        vocab_size: Prompts are token ids below this.
        isl_tokens: Longest prompt.
        osl_tokens: Longest output.
        length_ratio_min: Lengths are uniform on [length_ratio_min, 1] of the longest, where there are no `pairs`.
        pairs: (isl_tokens, osl_tokens) to draw from, each line as likely.
        is_in_line_order: Take the pairs in their order, over and over, instead of drawing.
        shared_prefix_tokens: How many tokens every prompt begins with alike; the rest is unique.
        num_first_wave: The requests before this one start in the middle of their life.
        max_prompt_tokens: Prompts of the first wave are cut to this, where an engine takes no longer ones.
    """

    seed: int
    vocab_size: int
    isl_tokens: int
    osl_tokens: int
    length_ratio_min: float = 1.0
    pairs: tuple[tuple[int, int], ...] | None = None
    is_in_line_order: bool = False
    shared_prefix_tokens: int = 0
    num_first_wave: int = 0
    max_prompt_tokens: int | None = None

    def request(self, index: int) -> Request:
        """Request number `index`.

        In the first wave the lengths are drawn from the distribution biased by output length (a slot is more likely
        to be seen in a long request), by rejection, and the age uniform over the output.
        """
        rng = np.random.default_rng([self.seed, index])
        isl, osl = self._lengths(rng, index)
        age = 0
        if index < self.num_first_wave:
            while rng.random() > osl / self.osl_tokens:
                isl, osl = self._lengths(rng, index)
            age = int(rng.integers(0, osl))
        low, high = (round(self.vocab_size * part) for part in VOCAB_RANGE)
        prompt = rng.integers(low, high, isl + age)[: None if age == 0 else self.max_prompt_tokens]
        if self.shared_prefix_tokens:
            prefix = _prefix(self.seed, low, high, self.shared_prefix_tokens)
            prompt[: len(prefix)] = prefix[: len(prompt)]
        return Request(index=index, prompt=prompt, osl_tokens=osl - age, age_tokens=age)

    def _lengths(self, rng: np.random.Generator, index: int) -> tuple[int, int]:
        if self.pairs is None:
            return self._uniform(rng, self.isl_tokens), self._uniform(rng, self.osl_tokens)
        return self.pairs[index % len(self.pairs) if self.is_in_line_order else int(rng.integers(len(self.pairs)))]

    def _uniform(self, rng: np.random.Generator, longest_tokens: int) -> int:
        return int(rng.integers(max(1, round(longest_tokens * self.length_ratio_min)), longest_tokens + 1))


@functools.lru_cache(maxsize=1)
def _prefix(seed: int, low: int, high: int, num_tokens: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, _PREFIX_STREAM]).integers(low, high, num_tokens)
