"""One run of AIPerf 0.13, from its own environment (.venv-aiperf): the same kind of load, as AIPerf saw it.

It is given bodies to send word for word, those that our client would send, and what it stored of each request is read
back. AIPerf stamps only chunks with text, so a request's tokens are spread evenly over those. A request without any
text, which random weights yield once in a hundred, it takes for a failure: the tokens that were asked for are then
spread evenly from the head of the response to its end.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.load.message import MessageWriter
from pipeline.load.sequence import Sequence
from pipeline.workload import OperatingPoint, Workload

AIPERF = ".venv-aiperf/bin/aiperf"
START_S = 180.0
"""Patience beyond the load itself; it takes 7 s on an idle machine, half a minute on a busy one."""

MARGIN_S = 1.0
"""It sends for so much longer than the window needs."""

MAX_REQUESTS_PER_S = 100
"""It is given so many bodies; none is sent twice."""

TOKENIZER: dict[str, dict[str, Any]] = {
    "tokenizer.json": {
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"t0": 0}, "unk_token": "t0"},
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "t0"},
}  # fmt: skip
"""AIPerf does not start without one; prompts are token ids and counts are the server's, so it has no use for it."""

NO_TEXT = "No responses with actual content"
"""What AIPerf says of a response without text."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A server, and the load to put on it.

    Attributes:
        url: Base address.
        model: Served model name.
        workload: Lengths and seed.
        vocab_size: Prompts are token ids below this.
        point: Requests in flight, or sent per second at random.
        warmup_s: From the first request to the window.
        window_s: Length of the window.
    """

    url: str
    model: str
    workload: Workload
    vocab_size: int
    point: OperatingPoint
    warmup_s: float
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as a client saw it; times in seconds since 1970.

    Attributes:
        sent_s: When it was sent.
        event_t_s: When output arrived.
        event_tokens: How many tokens came with each event.
        is_completed: Whether it ended with all its tokens.
    """

    sent_s: float
    event_t_s: Floats
    event_tokens: Floats
    is_completed: bool

    def s_within(self, begin_s: float, end_s: float) -> float:
        """For how long it was in flight between these times, as far as output tells."""
        last_s = float(self.event_t_s[-1]) if len(self.event_t_s) else self.sent_s
        return max(0.0, min(last_s, end_s) - max(self.sent_s, begin_s))


def run_aiperf(run: Run) -> list[Request]:
    """Every request of one run; slots start one after the other during the warm-up, so that they are not in step.

    Raises:
        SystemExit: If AIPerf or a request failed.
    """
    load_s = run.warmup_s + run.window_s + MARGIN_S
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        osl_tokens = _write_inputs(folder, run, round(load_s * MAX_REQUESTS_PER_S))
        options = {
            "--model": run.model, "--url": run.url, "--endpoint-type": "completions",
            "--input-file": f"{folder}/inputs.json", "--custom-dataset-type": "inputs-json",
            "--dataset-sampling-strategy": "sequential", "--tokenizer": f"{folder}/tokenizer",
            "--benchmark-duration": load_s, "--output-artifact-dir": f"{folder}/out", "--ui": "none",
        }  # fmt: skip
        if run.point.concurrency is None:
            options |= {"--request-rate": run.point.request_rate_per_s, "--arrival-pattern": "poisson"}
        else:
            options |= {"--concurrency": run.point.concurrency, "--concurrency-ramp-duration": run.warmup_s / 2}
        command = [AIPERF, "profile", *(str(part) for option in options.items() for part in option)]
        command += ["--streaming", "--use-server-token-count", "--no-gpu-telemetry", "--no-server-metrics"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_S + load_s)
        stored = folder / "out" / "profile_export.jsonl"
        if done.returncode or not stored.exists():
            raise SystemExit(f"AIPerf ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return [from_aiperf(json.loads(line), osl_tokens) for line in stored.read_text().splitlines()]


def _write_inputs(folder: Path, run: Run, count: int) -> dict[str, int]:
    """The bodies and a tokenizer; returns the output tokens asked for by each body, by its name."""
    load = run.workload
    requests = Sequence(
        seed=load.seed, vocab_size=run.vocab_size, isl_tokens=load.isl_tokens, osl_tokens=load.osl_tokens,
        length_ratio_min=load.length_ratio_min,
    )  # fmt: skip
    writer = MessageWriter(run.url, run.model, run.vocab_size)
    messages = (writer.message(r.prompt, r.osl_tokens) for r in map(requests.request, range(count)))
    bodies = [json.loads(message.partition(b"\r\n\r\n")[2]) for message in messages]
    by_name = {str(index): body for index, body in enumerate(bodies)}
    sessions = [{"session_id": name, "payloads": [body]} for name, body in by_name.items()]
    (folder / "inputs.json").write_text(json.dumps({"data": sessions}))
    (folder / "tokenizer").mkdir()
    for name, content in TOKENIZER.items():
        (folder / "tokenizer" / name).write_text(json.dumps(content))
    return {name: body["max_tokens"] for name, body in by_name.items()}


def from_aiperf(line: dict[str, Any], osl_tokens: Mapping[str, int]) -> Request:
    """A request as AIPerf stored it: nanoseconds since 1970, latencies in ms, an interval per chunk with text.

    Raises:
        SystemExit: If it failed.
    """
    metadata, error = line["metadata"], line.get("error")
    if metadata["was_cancelled"] or (error and NO_TEXT not in error["message"]):
        raise SystemExit(f"a request of AIPerf failed: {error or 'cancelled'}")
    sent_s = metadata["request_start_ns"] * 1e-9
    if error:
        count = osl_tokens[metadata["conversation_id"]]
        t_s = np.linspace(metadata["request_ack_ns"], metadata["request_end_ns"], count) * 1e-9
        return Request(sent_s=sent_s, event_t_s=t_s, event_tokens=np.ones(count), is_completed=True)
    metrics = {name: metric["value"] for name, metric in line["metrics"].items()}
    after_s = np.cumsum([metrics["time_to_first_token"], *metrics.get("inter_chunk_latency", ())]) * 1e-3
    return Request(
        sent_s=sent_s,
        event_t_s=sent_s + after_s,
        event_tokens=np.full(len(after_s), metrics["output_sequence_length"] / len(after_s)),
        is_completed=True,
    )
