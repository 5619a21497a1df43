import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.errors import ConfigError, LoadError
from pipeline.load.arrivals import Poisson
from pipeline.load.client import LoadClient
from pipeline.load.protocol import RequestRecord
from pipeline.workload import OperatingPoint
from tests.load.sse_server import Fault, Script, SseServer
from tests.load.workloads import VOCAB_SIZE, sequence, workload
from tests.meter.waiting import wait_until

CONCURRENCY = 3

GOOD = {
    "running usage in every chunk": Script(),
    "usage only at the end, several tokens per chunk": Script(usage="final", tokens_per_chunk=4),
    "CRLF, one byte at a time": Script(write="byte", line_end=b"\r\n"),
    "all events in one piece": Script(write="all"),
}

BAD = {
    "no usage at all": (Script(usage="none"), "no usage"),
    "malformed event": (Script(fault=Fault.GARBAGE_EVENT), "malformed stream event.*502"),
    "broken framing": (Script(fault=Fault.BAD_CHUNK_SIZE), "not HTTP"),
    "connection dropped": (Script(fault=Fault.DROP), "."),
    "connection dropped before the first token": (Script(fault=Fault.DROP, fault_after_chunks=0), "."),
    "too many requests": (Script(status=429), "HTTP 429: .*no room"),
    "server error": (Script(status=500), "HTTP 500: .*no room"),
    "server error that is no text": (Script(status=500, error_body=b"\xff\xfe\x80"), "HTTP 500"),
    "end without [DONE]": (Script(fault=Fault.NO_DONE), r"without \[DONE\]"),
    "error event": (Script(fault=Fault.ERROR_EVENT), "cache is full"),
    "a token too many": (Script(surplus_tokens=1), r"(\d+) tokens asked for, (?!\1 )\d+ received"),
    "a token too few": (Script(surplus_tokens=-1), r"(\d+) tokens asked for, (?!\1 )\d+ received"),
    "a token too few, by its last usage": (
        Script(usage="final", surplus_tokens=-1),
        r"(\d+) tokens asked for, (?!\1 )\d+ received",
    ),
    "usage goes backwards": (Script(fault=Fault.USAGE_FALLS), "backwards"),
    "no stream": (Script(fault=Fault.NO_STREAM), r"without \[DONE\]"),
}


@pytest.fixture
def server() -> Iterator[SseServer]:
    with SseServer() as running:
        yield running


def closed_loop(
    server: SseServer, concurrency: int = CONCURRENCY, num_workers: int | None = None, **other: Any
) -> LoadClient:
    point = OperatingPoint(concurrency=concurrency)
    return LoadClient(server.url, "m", workload(**other), VOCAB_SIZE, point, num_workers)


def open_loop(server: SseServer, rate_per_s: float | None, num_workers: int = 1, **other: Any) -> LoadClient:
    arrival = "schedule" if rate_per_s is None else "poisson"
    point = OperatingPoint(request_rate_per_s=rate_per_s)
    return LoadClient(server.url, "m", workload(arrival=arrival, **other), VOCAB_SIZE, point, num_workers)


def assert_consistent(load: LoadClient) -> list[RequestRecord]:
    """What holds for every load that has ended, however it went; returns the records."""
    state, records = load.snapshot(), load.records()
    assert state.output_tokens == sum(record.output_tokens for record in records)
    assert state.num_completed == sum(record.is_completed for record in records)
    assert state.num_failed == sum(record.error is not None for record in records)
    assert state.num_in_flight == sum(record.end_ns is None for record in records)
    for record in records:
        times, tokens = record.event_t_ns, record.event_tokens
        assert len(times) == len(tokens)
        assert list(times) == sorted(times)
        assert list(tokens) == sorted(tokens)
        assert record.sent_ns <= min(times, default=record.sent_ns)
        assert not record.is_completed or record.end_ns == times[-1]
        assert record.error is None or record.end_ns is not None
    return records


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD.keys())
def test_good_answer_is_counted_token_by_token(server: SseServer, script: Script) -> None:
    server.script = script
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_completed >= 12 or load.snapshot().num_failed, "completions")
    records = assert_consistent(load)
    assert [record.error for record in records if record.error] == []
    assert load.snapshot().last_error is None
    completed = [record for record in records if record.is_completed]
    assert len(completed) >= 12
    assert all(record.output_tokens == record.osl_tokens for record in completed)
    if script.usage == "continuous" and script.write == "event" and script.tokens_per_chunk == 1:
        assert all(list(record.event_tokens) == list(range(1, record.osl_tokens + 1)) for record in completed)


@pytest.mark.parametrize(("script", "error"), BAD.values(), ids=BAD.keys())
def test_bad_answer_is_a_failure_that_says_why(server: SseServer, script: Script, error: str) -> None:
    server.script = script
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
    records = assert_consistent(load)
    errors = [record.error for record in records if record.error is not None]
    assert all(re.search(error, text) for text in errors), errors
    assert load.snapshot().last_error in errors
    completed = [record for record in records if record.is_completed]
    assert all(script.fault and record.osl_tokens <= script.fault_after_chunks for record in completed)


def test_tokens_before_a_failure_stay_in_its_record(server: SseServer) -> None:
    server.script = Script(fault=Fault.DROP, fault_after_chunks=2)
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
    failed = [record for record in assert_consistent(load) if record.error is not None]
    assert {record.output_tokens for record in failed if record.osl_tokens > 2} == {2}


def test_no_server_is_a_failure_that_names_the_address() -> None:
    with SseServer() as gone:
        load = closed_loop(gone)
    with load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
    assert_consistent(load)
    error = load.snapshot().last_error
    assert error is not None
    assert gone.url.removeprefix("http://") in error


def test_load_goes_on_when_the_server_recovers(server: SseServer) -> None:
    server.script = Script(status=500)
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_failed >= CONCURRENCY, "failures")
        server.script = Script()
        wait_until(lambda: load.snapshot().num_completed >= 2 * CONCURRENCY, "completions after failures")
    assert_consistent(load)


@pytest.mark.parametrize("num_chunks", [None, 0, 2], ids=["no headers", "no chunk", "two chunks"])
def test_silent_server_is_no_failure_and_holds_nobody_up(server: SseServer, num_chunks: int | None) -> None:
    silent = Script(hold=True) if num_chunks is None else Script(fault=Fault.SILENCE, fault_after_chunks=num_chunks)
    server.script = silent
    with closed_loop(server) as load:
        began_ns = load.snapshot().last_event_ns
        wait_until(lambda: server.num_in_flight == CONCURRENCY, "requests in flight")
        wait_until(lambda: is_stuck(load, num_chunks or 0), "the tokens there are")
        last_ns = load.snapshot().last_event_ns
    assert load.snapshot().last_event_ns == last_ns
    assert (last_ns == began_ns) == (load.snapshot().output_tokens == 0)
    records = assert_consistent(load)
    assert [record.error for record in records if record.error] == []
    assert sum(record.end_ns is None for record in records) == CONCURRENCY
    wait_until(lambda: server.num_in_flight == 0, "the server sees that the client has left")


def is_stuck(load: LoadClient, num_chunks: int) -> bool:
    """Whether every request in flight has all the tokens it will ever get; shorter ones have ended."""
    running = [record for record in load.records() if record.end_ns is None]
    return len(running) == CONCURRENCY and all(
        record.output_tokens == num_chunks < record.osl_tokens for record in running
    )


def test_leaving_cancels_without_a_failure(server: SseServer) -> None:
    server.script = Script(interval_s=0.05)
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().output_tokens >= CONCURRENCY, "tokens")
    records = assert_consistent(load)
    assert any(record.end_ns is None for record in records), "nothing was in flight, so nothing was tested"
    assert all(record.error is None for record in records)
    wait_until(lambda: server.num_in_flight == 0, "the server sees that the client has left")


def test_leaving_at_once_does_not_hang(server: SseServer) -> None:
    for _ in range(5):
        load = closed_loop(server)
        leave = threading.Thread(target=enter_and_leave, args=(load,), daemon=True)
        leave.start()
        leave.join(20)
        assert not leave.is_alive(), "the client never left"
        assert_consistent(load)


def has_received(server: SseServer, num_requests: int) -> bool:
    return len(server.bodies) == num_requests


def enter_and_leave(load: LoadClient) -> None:
    with load:
        pass


def test_concurrency_is_kept(server: SseServer) -> None:
    server.script = Script(hold=True)
    concurrency = 8
    with closed_loop(server, concurrency) as load:
        wait_until(lambda: server.num_in_flight == concurrency, "the first wave")
        for num_released in range(1, 25):
            server.release()
            wait_until(partial(has_received, server, concurrency + num_released), "the next request")
            wait_until(lambda: server.num_in_flight == concurrency, "a full house")
        assert server.max_in_flight == concurrency
    assert load.snapshot().num_completed == 24


@pytest.mark.parametrize("num_workers", [1, 3])
def test_what_is_sent_is_the_seeded_sequence(server: SseServer, num_workers: int) -> None:
    with closed_loop(server, num_workers=num_workers) as load:
        wait_until(lambda: load.snapshot().num_completed >= 30, "completions")
    records, wanted = load.records(), sequence(num_first_wave=CONCURRENCY)
    bodies = {tuple(body["prompt"]): body for body in server.bodies}
    assert [record.index for record in records] == list(range(len(records)))
    for record in records[: len(server.bodies) - CONCURRENCY]:
        request = wanted.request(record.index)
        body = bodies[tuple(request.prompt.tolist())]
        assert (record.isl_tokens, record.osl_tokens) == (len(request.prompt), request.osl_tokens)
        assert body["max_tokens"] == body["min_tokens"] == request.osl_tokens
        assert body["ignore_eos"] is True
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        assert body["model"] == "m"


def test_slots_keep_their_connections(server: SseServer) -> None:
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().num_completed >= 10 * CONCURRENCY, "completions")
    assert server.num_connections == CONCURRENCY


@pytest.mark.parametrize("new_load", [closed_loop, partial(open_loop, rate_per_s=100.0)], ids=["closed", "open"])
def test_server_that_closes_connections_costs_no_request(
    server: SseServer, new_load: Callable[[SseServer], LoadClient]
) -> None:
    server.script = Script(closes=True)
    with new_load(server) as load:
        wait_until(lambda: load.snapshot().num_completed >= 12 or load.snapshot().num_failed, "completions")
    assert load.snapshot().last_error is None
    assert server.num_connections >= 12


def test_slots_of_all_workers_add_up(server: SseServer) -> None:
    server.script = Script(hold=True)
    with closed_loop(server, concurrency=7, num_workers=3) as load:
        wait_until(lambda: server.num_in_flight == load.snapshot().num_in_flight == 7, "the first wave")
        server.release(7)
        wait_until(lambda: len(server.bodies) == 14, "the second")
        assert server.max_in_flight == 7


@pytest.mark.parametrize("num_workers", [1, 3])
def test_open_loop_sends_on_time_whatever_comes_back(server: SseServer, num_workers: int) -> None:
    server.script, rate_per_s = Script(hold=True), 200.0
    with open_loop(server, rate_per_s, num_workers) as load:
        wait_until(lambda: server.num_in_flight >= 40, "requests in flight, none of them answered")
        server.release(1000)
        wait_until(lambda: load.snapshot().num_completed >= 60, "completions")
    records = sorted(assert_consistent(load), key=lambda record: record.index)
    assert [record.index for record in records] == list(range(len(records)))
    due_ns = [record.due_ns for record in records if record.due_ns is not None]
    gaps_s = [(after - before) * 1e-9 for before, after in pairwise(due_ns)]
    times_s = list(islice(Poisson(rate_per_s, seed=0).times_s(), len(records)))
    assert gaps_s == pytest.approx([b - a for a, b in pairwise(times_s)], abs=1e-8)
    assert all(record.due_ns is not None and record.sent_ns >= record.due_ns for record in records)
    wanted = sequence()
    assert [r.isl_tokens for r in records] == [len(wanted.request(r.index).prompt) for r in records], "no first wave"


def test_open_loop_uses_idle_connections_again(server: SseServer) -> None:
    with open_loop(server, 100.0):
        wait_until(lambda: server.num_connections < len(server.bodies), "a request on a used connection")


def test_open_loop_counts_requests_it_could_not_send_from_when_they_were_due() -> None:
    with SseServer() as gone:
        load = open_loop(gone, 200.0)
    with load:
        wait_until(lambda: load.snapshot().num_failed >= 10, "failures")
    assert all(record.due_ns is not None for record in assert_consistent(load))


def test_schedule_sends_the_lines_of_its_file_and_starts_over(server: SseServer, tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("isl_tokens,osl_tokens,at_s\n5,2,0\n7,3,0.03\n9,4,0.04\n")
    with open_loop(server, None, isl_tokens=9, osl_tokens=4, lengths_file=str(file)) as load:
        wait_until(lambda: load.snapshot().num_completed >= 7, "completions")
    records = sorted(assert_consistent(load), key=lambda record: record.index)[:7]
    lines = [(5, 2), (7, 3), (9, 4)]
    assert [(r.isl_tokens, r.osl_tokens) for r in records] == (lines * 3)[:7]
    first_ns = records[0].due_ns or 0
    assert [((r.due_ns or 0) - first_ns) * 1e-9 for r in records] == pytest.approx(
        [0, 0.03, 0.04, 0.06, 0.09, 0.1, 0.12]
    )


def test_lengths_of_a_file_are_sent_in_a_closed_loop_too(server: SseServer, tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("isl_tokens,osl_tokens\n5,2\n9,8\n")
    with closed_loop(server, isl_tokens=9, osl_tokens=8, lengths_file=str(file)) as load:
        wait_until(lambda: load.snapshot().num_completed >= 20, "completions")
    lengths = [(record.isl_tokens, record.osl_tokens) for record in load.records()[CONCURRENCY:]]
    assert set(lengths) == {(5, 2), (9, 8)}


@pytest.mark.parametrize(
    ("other", "point"),
    [
        ({}, OperatingPoint(request_rate_per_s=1.0)),
        ({"arrival": "poisson"}, OperatingPoint(concurrency=1)),
        ({"arrival": "schedule"}, OperatingPoint()),
    ],
)
def test_operating_point_that_is_none_of_the_workload_is_an_error(other: dict[str, Any], point: OperatingPoint) -> None:
    with pytest.raises(ConfigError, match=f"workload.arrival=.*{point}"):
        LoadClient("http://127.0.0.1:1", "m", workload(**other), VOCAB_SIZE, point)


def test_workers_tell_their_cpu_time_and_lag_all_the_time(server: SseServer) -> None:
    with closed_loop(server, num_workers=2) as load:
        wait_until(lambda: len(load.client_samples()) >= 10, "samples")
        before = load.client_samples()
    after = load.client_samples()
    assert after[: len(before)] == before
    assert {sample.worker for sample in after} == {0, 1}
    assert [sample.t_ns for sample in after] == sorted(sample.t_ns for sample in after)
    assert all(sample.lag_s >= 0 for sample in after)
    for worker in (0, 1):
        cpu_s = [sample.cpu_s for sample in after if sample.worker == worker]
        assert cpu_s == sorted(cpu_s)
        assert cpu_s[0] > 0


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def failed(load: LoadClient) -> bool:
    try:
        load.snapshot()
    except LoadError:
        return True
    return False


def test_failure_of_the_client_itself_is_raised_and_leaves_nothing(server: SseServer) -> None:
    before = children()
    load = LoadClient(server.url, "m", workload(), 0, OperatingPoint(concurrency=1))  # no token id to draw
    with load:
        wait_until(lambda: failed(load), "a client that fails")
        with pytest.raises(LoadError, match="the load client failed: ValueError") as raised:
            load.records()
        assert "\n" not in str(raised.value)
        assert any("sequence.py" in note for note in raised.value.__notes__), "where it failed"
    for ask in (load.snapshot, load.records, load.client_samples):
        with pytest.raises(LoadError, match="the load client failed"):
            ask()
    assert children() == before


def test_death_of_a_worker_is_raised_and_leaves_nothing(server: SseServer) -> None:
    before = children()
    with closed_loop(server, num_workers=2) as load:
        wait_until(lambda: load.snapshot().output_tokens, "tokens")
        os.kill(min(children() - before), signal.SIGKILL)
        wait_until(lambda: failed(load), "a client that fails")
        with pytest.raises(LoadError, match=r"load client worker \d ended with exit status -9"):
            load.snapshot()
    with pytest.raises(LoadError, match="ended"):
        load.snapshot()
    assert children() == before


def test_worker_that_does_not_start_is_an_error(server: SseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LoadError, match="worker 0 ended with exit status 1"), closed_loop(server):
        pass
    assert children() == before


def test_interrupt_does_not_reach_the_workers(server: SseServer) -> None:
    before = children()
    with closed_loop(server) as load:
        wait_until(lambda: load.snapshot().output_tokens, "tokens")
        for worker in children() - before:
            assert os.getpgid(worker) != os.getpgid(0), "a terminal sends it to its group"
            os.kill(worker, signal.SIGINT)
        seen = load.snapshot().output_tokens
        wait_until(lambda: load.snapshot().output_tokens > seen + 100, "more tokens")


def test_no_thread_and_no_process_is_left(server: SseServer) -> None:
    threads, processes = threading.active_count(), children()
    with closed_loop(server, num_workers=2) as load:
        wait_until(lambda: load.snapshot().num_completed >= 1, "a completion")
        assert threading.active_count() == threads
        assert len(children() - processes) == 2
    assert children() == processes


ROOT = Path(__file__).parents[2]

PARENT = """
import sys
from tests.load.test_client import closed_loop
class Server: url = sys.argv[1]
load = closed_loop(Server, num_workers=2).__enter__()
print("running", flush=True)
sys.stdin.read()
"""


def test_workers_die_with_a_parent_that_is_killed(server: SseServer) -> None:
    server.script = Script(interval_s=0.05)
    command = [sys.executable, "-c", PARENT, server.url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"running\n"
        workers = psutil.Process(parent.pid).children()
        assert len(workers) == 2
        wait_until(lambda: server.num_in_flight == CONCURRENCY, "requests in flight")
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    wait_until(lambda: server.num_in_flight == 0, "the server sees that the client has left")


def test_worker_imports_little() -> None:
    """It starts for every operating point, and the demo plan has one every few seconds."""
    heavy = "pydantic", "pandas", "pyarrow", "scipy", "hydra", "optuna", "aiohttp", "multiprocessing.resource_tracker"
    program = f"import sys, pipeline.load.worker; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"[]"
