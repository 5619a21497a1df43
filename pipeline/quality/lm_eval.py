"""lm-evaluation-harness on a running server: in its own environment, offline, with tasks and data from local paths.

Written against lm-eval 0.4.13: its command line, and the file `results_*.json` that it writes, whose `results` hold
each task's metrics as "NAME,FILTER" beside "NAME_stderr,FILTER".
"""

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from pipeline.errors import ConfigError
from pipeline.quality.answers import Endpoint
from pipeline.quality.settings import QualitySettings

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
REMEDY = "install it there by `pip install 'lm-eval[api]'`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A task's metric.

    Attributes:
        task: Its name.
        metric: Name and filter, as lm-eval writes them: acc,none.
        value: The score.
        stderr: Its standard error over the samples; None where lm-eval gives none.
        is_higher_better: Which way is better; None where lm-eval does not say.
        num_samples: Samples that it is over.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    is_higher_better: bool | None
    num_samples: int | None


def run_lm_eval(endpoint: Endpoint, settings: QualitySettings) -> tuple[list[Score], str]:
    """Evaluate a server; the scores, and lm-eval's version.

    Raises:
        ConfigError: If lm-eval is not there, fails, or takes too long.
    """
    name = f"quality.lm_eval_python={settings.lm_eval_python}"
    with tempfile.TemporaryDirectory(prefix="tpw-lm-eval-") as folder:
        try:
            done = subprocess.run(
                command(endpoint, settings, folder),
                env=os.environ | OFFLINE, capture_output=True, text=True, check=False,
                timeout=settings.lm_eval_timeout_s,
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(f"{name}: cannot be run ({error.strerror}); give a Python that has lm-eval") from error
        except subprocess.TimeoutExpired as error:
            raise ConfigError(
                f"quality.lm_eval_timeout_s={settings.lm_eval_timeout_s:g}: {endpoint.side}={endpoint.url} was not "
                "evaluated in time; raise it, or set quality.lm_eval_limit"
            ) from error
        files = sorted(Path(folder).rglob("results_*.json"))
        if done.returncode != 0 or not files:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            fix = f"; {REMEDY}" if "No module named" in last else ""
            raise ConfigError(f"{name}: lm-eval failed on {endpoint.side}={endpoint.url}: {last[:300]}{fix}")
        return read_results(files[-1])


def command(endpoint: Endpoint, settings: QualitySettings, folder: str) -> list[str]:
    """lm-eval's command line; without a tokenizer it can generate, and not score log-likelihoods."""
    tokenizer = (
        "tokenizer_backend=none,tokenized_requests=False"
        if settings.lm_eval_tokenizer is None
        else f"tokenizer_backend=huggingface,tokenizer={settings.lm_eval_tokenizer}"
    )
    args = f"model={endpoint.model},base_url={endpoint.url}/v1/completions,num_concurrent={settings.concurrency}"
    tasks = [] if settings.lm_eval_tasks_dir is None else ["--include_path", settings.lm_eval_tasks_dir]
    limit = [] if settings.lm_eval_limit is None else ["--limit", str(settings.lm_eval_limit)]
    return [
        str(settings.lm_eval_python), "-m", "lm_eval", "--model", "local-completions",
        "--model_args", f"{args},timeout={math.ceil(settings.timeout_s)},{tokenizer}",
        "--tasks", ",".join(settings.lm_eval_tasks), *tasks, *limit, "--output_path", folder,
    ]  # fmt: skip


def read_results(path: Path) -> tuple[list[Score], str]:
    """The scores in a results file, and the version of lm-eval that wrote it.

    Raises:
        ConfigError: If it is no such file, or holds no score.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        scores = [score for task, values in found["results"].items() for score in _scores(task, values, found)]
        version = str(found.get("lm_eval_version", "unknown"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is no results file of lm-eval ({error!r})") from error
    if not scores:
        raise ConfigError(f"{path}: holds no score; name tasks in quality.lm_eval_tasks that have a metric")
    return scores, version


def _scores(task: str, values: Mapping[str, Any], found: Mapping[str, Any]) -> list[Score]:
    counts = (found.get("n-samples") or {}).get(task) or {}
    scores = []
    for key, value in values.items():
        name, _, kind = key.partition(",")
        if not kind or name.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        stderr = values.get(f"{name}_stderr,{kind}")
        scores.append(
            Score(
                task=task, metric=key, value=float(value),
                stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
                is_higher_better=(found.get("higher_is_better") or {}).get(task, {}).get(name),
                num_samples=counts.get("effective"),
            )
        )  # fmt: skip
    return scores


def ratio(candidate: Score, reference: Score) -> tuple[float | None, float | None, float | None]:
    """Candidate / reference with 95 % bounds; None where it cannot be said.

    The standard errors are taken as independent (delta method on the ratio). Both answer the same samples, so that
    the truth is mostly narrower; for a metric where less is better it is turned over.
    """
    if candidate.is_higher_better is False:
        candidate, reference = reference, candidate
    if reference.value <= 0 or candidate.value < 0:
        return None, None, None
    value = candidate.value / reference.value
    own, other = _stderr(candidate), _stderr(reference)
    if own is None or other is None:
        return value, None, None
    spread = math.hypot(own, value * other) / reference.value * float(stats.norm.ppf(0.975))
    return value, value - spread, value + spread


def _stderr(score: Score) -> float | None:
    """Its standard error; of a share no less than by Agresti and Coull (Am. Stat. 52 (1998) 119).

    lm-eval's own is 0 where all samples are right, which says that there is no doubt after ten of them.
    """
    if score.stderr is None or not score.num_samples or not 0 <= score.value <= 1:
        return score.stderr
    count = score.num_samples + 4
    share = (score.value * score.num_samples + 2) / count
    return max(score.stderr, math.sqrt(share * (1 - share) / count))
