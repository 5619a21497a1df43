"""A second opinion for the prior: aiconfigurator, asked in an environment of its own about all configs at once.

That environment takes 850 MB and is named by `search.aiconfigurator_python`; without that key nothing here runs.
"""

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.engine.side import aiconfigurator_estimates as script
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.roofline.aiconfigurator import KEY, Answer, Request, at_speed, combined, request, system_of
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.predict import Prediction, predict_loads
from pipeline.search.ladder import loads_of
from pipeline.study import Study
from pipeline.workload import OperatingPoint

TIMEOUT_S = 900.0
"""Importing and reading take 5 to 10 s, an estimate some 25 ms; a large space has thousands of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """Everything that aiconfigurator said about a study; empty where it was not asked.

    Attributes:
        version: Of aiconfigurator.
        database: Version of the engine whose kernels were measured.
        answers: By request; a text says why there is none.
        is_wanted: Whether it was to be asked.
        levels: By load, the median of its throughput / ours over the configs that it has an answer for.
    """

    version: str | None = None
    database: str | None = None
    answers: Mapping[Request, Answer | str] = field(default_factory=dict)
    levels: Mapping[float, float] = field(default_factory=dict)
    is_wanted: bool = False

    def of(
        self, study: Study, config: EngineConfig, point: OperatingPoint, ours: Prediction
    ) -> Prediction | str | None:
        """What it makes of our prediction; a text says why it has none, None that it was not asked."""
        if not self.is_wanted:
            return None
        asked = request(study.model, study.hardware, study.workload, config, ours.running)
        if isinstance(asked, str):
            return asked
        answer = self.answers.get(asked)
        if not isinstance(answer, Answer):
            return answer
        num_waiting = (point.concurrency or ours.running) - ours.running
        return combined(ours, asked, answer, study.hardware, num_waiting=num_waiting)

    def counted(self, study: Study, config: EngineConfig, point: OperatingPoint, ours: Prediction) -> Prediction:
        """What orders configs: its answer, else ours at its level for this load, else ours.

        aiconfigurator leaves out most of what an engine does between kernels, so its throughput is mostly higher than
        ours: next to its figures, ours as they are would put last whatever it has no data of.
        """
        theirs, level = self.of(study, config, point, ours), self.levels.get(point.load)
        if isinstance(theirs, Prediction):
            return theirs
        return ours if level is None else at_speed(ours, level, study.hardware, config.parallelism.num_gpus)


NO_OPINION = Opinion()


def second_opinion(study: Study, configs: Iterable[EngineConfig]) -> Opinion:
    """What aiconfigurator says about all loads of these configs; empty, at no cost, where the key is not set.

    Raises:
        ConfigError: If it cannot be asked, or does not know the model or the GPU.
    """
    python = study.search.aiconfigurator_python
    if python is None:
        return NO_OPINION
    system_of(study.hardware, study.engine.name)
    ours_by_request = dict[tuple[float, Request], Prediction]()
    load, points = study.workload, loads_of(study)
    for config in configs:
        found = predict_loads(study.model, study.hardware, load, config, points, calibration_of(study))
        for point, ours in zip(points, () if isinstance(found, str) else found, strict=False):
            asked = request(study.model, study.hardware, load, config, ours.running)
            ours_by_request |= {(point.load, asked): ours} if isinstance(asked, Request) else {}
    if not ours_by_request:
        return Opinion(is_wanted=True)
    opinion = ask(python, tuple(dict.fromkeys(asked for _, asked in ours_by_request)))
    ratios: dict[float, list[float]] = {}
    for (users, asked), ours in ours_by_request.items():
        answer = opinion.answers[asked]
        if isinstance(answer, Answer):
            theirs = combined(ours, asked, answer, study.hardware, num_waiting=0)
            ratios.setdefault(users, []).append(theirs.output_tokens_per_s / ours.output_tokens_per_s)
    levels = {users: median(values) for users, values in ratios.items()}
    return dataclasses.replace(opinion, levels=levels, is_wanted=True)


@lru_cache(maxsize=4)
def ask(python: str, requests: tuple[Request, ...]) -> Opinion:
    """Ask for all requests of one model and GPU at once, or remember what was said; levels are left out.

    Raises:
        ConfigError: If it cannot be run there, or has a problem that concerns all requests.
    """
    program = shutil.which(python)
    if program is None:
        raise ConfigError(
            f"{KEY}={python}: no such interpreter; python3 -m venv DIR && DIR/bin/pip install 'aiconfigurator==0.12.0' "
            "makes one, DIR/bin/python"
        )
    command = (program, "-P", "-c", Path(script.__file__).read_text("utf-8"))
    text_in = json.dumps([dataclasses.asdict(one) for one in requests])
    try:
        done = subprocess.run(command, input=text_in, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except OSError as error:
        raise ConfigError(f"{KEY}={python}: does not start: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{KEY}={python}: gave no answer within {TIMEOUT_S:g} s; leave the key out") from error
    marked = [line for line in done.stdout.splitlines() if line.startswith(script.MARK)]
    if not marked:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise ConfigError(f"{KEY}={python}: ended with status {done.returncode}: {last}")
    return _read(json.loads(marked[-1].removeprefix(script.MARK)), python, requests)


def _read(said: Mapping[str, Any], python: str, requests: tuple[Request, ...]) -> Opinion:
    problem = said["problem"]
    if problem is not None:
        texts = {
            "module": f"needs aiconfigurator {script.SUPPORTED}x: {problem['message']}; install aiconfigurator==0.12.0",
            "system": f"aiconfigurator {said['version']} has {problem['message']}; leave the key out",
            "model": f"aiconfigurator {said['version']} does not know {requests[0].model}: {problem['message']}; leave "
            "the key out",
        }
        raise ConfigError(f"{KEY}={python}: {texts[problem['key']]}")
    answers = [answer.get("error") or Answer(**answer) for answer in said["answers"]]
    return Opinion(
        version=said["version"], database=said["database"], answers=dict(zip(requests, answers, strict=True))
    )
