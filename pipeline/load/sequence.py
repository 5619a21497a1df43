"""The one seeded request sequence that every configuration replays (common random numbers).

Request i depends on the workload's seed and i alone, so two configurations meet the same requests in the same
order. The first wave starts in the middle of its life: each slot draws an age from the stationary distribution
(the prompt is lengthened by it, the output shortened), so that context lengths and phases are stationary at once
and the slots do not finish together.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.study import Workload

VOCAB_RANGE = (0.01, 0.95)
"""Part of the vocabulary that prompts are drawn from: special tokens sit at either end of every one in conf/model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to send.

    Attributes:
        index: Position in the sequence.
        prompt: Token ids, `isl_tokens` of them.
        osl_tokens: Output length asked for.
        age_tokens: Tokens by which the prompt was lengthened and the output shortened.
    """

    index: int
    prompt: list[int]
    osl_tokens: int
    age_tokens: int


def request(workload: Workload, vocab_size: int, index: int, *, first_wave: bool) -> Request:
    """Request number `index` of a workload.

    Lengths are uniform on [length_ratio_min, 1] of nominal. In the first wave the output length is drawn from the
    length-biased distribution (a slot is more likely to be seen in a long request) and the age uniform over it.
    """
    rng = np.random.default_rng([workload.seed, index])
    isl = _length(rng, workload.isl_tokens, workload.length_ratio_min)
    osl = _length(rng, workload.osl_tokens, workload.length_ratio_min)
    age = 0
    if first_wave:
        while rng.random() > osl / workload.osl_tokens:
            osl = _length(rng, workload.osl_tokens, workload.length_ratio_min)
        age = int(rng.integers(0, osl))
    low, high = (round(vocab_size * part) for part in VOCAB_RANGE)
    prompt = rng.integers(low, high, isl + age).tolist()
    return Request(index=index, prompt=prompt, osl_tokens=osl - age, age_tokens=age)


def _length(rng: np.random.Generator, nominal_tokens: int, ratio_min: float) -> int:
    return int(rng.integers(max(1, round(nominal_tokens * ratio_min)), nominal_tokens + 1))
