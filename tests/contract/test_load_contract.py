"""What every Load promises, whichever server it drives."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from aiohttp import web

from pipeline.load.client import LoadClient
from pipeline.load.protocol import Load
from pipeline.workload import OperatingPoint
from tests.load.sse_server import Script, SseServer
from tests.load.workloads import VOCAB_SIZE, workload
from tests.meter.waiting import wait_until

CONCURRENCY = 4

LOADS: dict[str, Callable[[str], Load]] = {
    "closed_loop": lambda url: LoadClient(
        url, "m", workload(osl_tokens=12), VOCAB_SIZE, OperatingPoint(concurrency=CONCURRENCY)
    ),
    "closed_loop_of_two_workers": lambda url: LoadClient(
        url, "m", workload(osl_tokens=12), VOCAB_SIZE, OperatingPoint(concurrency=CONCURRENCY), 2
    ),
    "open_loop": lambda url: LoadClient(
        url, "m", workload(osl_tokens=12, arrival="poisson"), VOCAB_SIZE, OperatingPoint(request_rate_per_s=150.0), 2
    ),
}


@contextmanager
def raw_server() -> Iterator[str]:
    """The stand-in that writes to the socket itself."""
    with SseServer(Script(interval_s=0.002)) as server:
        yield server.url


@contextmanager
def aiohttp_server() -> Iterator[str]:
    """The same answers by aiohttp, as the embedded engine gives them."""
    loop, listening, stop, urls = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), list[str]()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", complete)
        runner = web.AppRunner(app, shutdown_timeout=0.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append("http://{}:{}".format(*runner.addresses[0]))
        listening.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert listening.wait(20), "the server did not start"
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def complete(request: web.Request) -> web.StreamResponse:
    """Stream as many tokens as asked for, with running usage."""
    body, response = await request.json(), web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client has left
        for token in range(body["max_tokens"]):
            chunk = {"choices": [{"text": "x"}], "usage": {"completion_tokens": token + 1}}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.sleep(0.002)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    return response


@pytest.fixture(params=LOADS)
def new_load(request: pytest.FixtureRequest) -> Callable[[str], Load]:
    return LOADS[request.param]


@pytest.fixture(params=[raw_server, aiohttp_server], ids=["raw", "aiohttp"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as address:
        yield address


def run(load: Load, num_completed: int = 3 * CONCURRENCY) -> None:
    """Keep the load running until so many requests are complete."""
    with load:
        wait_until(lambda: load.snapshot().num_completed >= num_completed, "completions")


def test_load_starts_from_nothing(new_load: Callable[[str], Load]) -> None:
    before_ns = time.monotonic_ns()
    with SseServer(Script(hold=True)) as server, new_load(server.url) as load:
        state = load.snapshot()
        assert (state.output_tokens, state.num_completed, state.num_failed, state.last_error) == (0, 0, 0, None)
        assert before_ns <= state.last_event_ns <= time.monotonic_ns()


def test_snapshots_never_go_back(new_load: Callable[[str], Load], url: str) -> None:
    states = []
    with new_load(url) as load:

        def has_run() -> bool:
            states.append(load.snapshot())
            return states[-1].num_completed >= 3 * CONCURRENCY

        wait_until(has_run, "completions")
    states.append(load.snapshot())
    for name in ("output_tokens", "num_completed", "num_failed", "last_event_ns"):
        values = [getattr(state, name) for state in states]
        assert values == sorted(values), name
    assert states[-1].num_failed == 0
    assert len({state.output_tokens for state in states}) > 3, "tokens are told as they arrive, not when a request ends"


def test_records_are_in_the_order_sent_and_whole_while_the_load_runs(new_load: Callable[[str], Load], url: str) -> None:
    with new_load(url) as load:

        def has_run() -> bool:
            records = load.records()
            assert [record.sent_ns for record in records] == sorted(record.sent_ns for record in records)
            assert len({record.index for record in records}) == len(records)
            for record in records:
                assert len(record.event_t_ns) == len(record.event_tokens)
                assert list(record.event_tokens) == sorted(set(record.event_tokens))
                assert [record.sent_ns, *record.event_t_ns] == sorted([record.sent_ns, *record.event_t_ns])
            return len(records) >= 5 * CONCURRENCY

        wait_until(has_run, "requests")


def test_records_say_what_was_asked_and_what_came(new_load: Callable[[str], Load], url: str) -> None:
    began_ns, load = time.monotonic_ns(), new_load(url)
    run(load)
    ended_ns, state, records = time.monotonic_ns(), load.snapshot(), load.records()
    completed = [record for record in records if record.is_completed]
    assert state.num_completed == len(completed) >= 3 * CONCURRENCY
    assert state.num_in_flight == len(records) - len(completed)
    assert state.output_tokens == sum(record.output_tokens for record in records)
    assert state.last_event_ns == max(record.event_t_ns[-1] for record in records if record.event_t_ns)
    assert sorted(record.index for record in records) == list(range(len(records)))
    for record in completed:
        assert record.output_tokens == record.osl_tokens > 0
        assert record.isl_tokens > 0
        assert record.end_ns is not None
        assert began_ns <= record.sent_ns < record.event_t_ns[0] <= record.event_t_ns[-1] <= record.end_ns <= ended_ns
        assert record.due_ns is None or began_ns <= record.due_ns <= record.sent_ns


def test_records_are_copies(new_load: Callable[[str], Load], url: str) -> None:
    load = new_load(url)
    run(load)
    for record in load.records():
        del record.event_t_ns[:], record.event_tokens[:]
        record.error = "scribbled"
    assert sum(record.output_tokens for record in load.records()) == load.snapshot().output_tokens
    assert all(record.error is None for record in load.records())


def test_client_samples_come_in_order_of_time(new_load: Callable[[str], Load], url: str) -> None:
    began_ns, load = time.monotonic_ns(), new_load(url)
    run(load)
    samples = load.client_samples()
    assert samples == load.client_samples()
    assert samples
    assert [sample.t_ns for sample in samples] == sorted(sample.t_ns for sample in samples)
    assert began_ns < samples[0].t_ns <= samples[-1].t_ns < time.monotonic_ns()
    assert all(sample.cpu_s > 0 and sample.lag_s >= 0 for sample in samples)


def test_leaving_is_final_and_no_failure(new_load: Callable[[str], Load], url: str) -> None:
    load = new_load(url)
    run(load)
    state, records = load.snapshot(), load.records()
    assert (state.num_failed, state.last_error) == (0, None)
    assert all(record.error is None for record in records)
    time.sleep(0.05)  # time in which a request that still ran would bring tokens
    assert load.snapshot() == state
    assert load.records() == records


def test_leaving_passes_errors_on_and_leaves_nothing_running(new_load: Callable[[str], Load], url: str) -> None:
    threads, processes = threading.active_count(), psutil.Process().children(recursive=True)

    def fail_under_load() -> None:
        with new_load(url) as load:
            wait_until(lambda: load.snapshot().output_tokens, "tokens")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_under_load()
    assert threading.active_count() == threads
    assert psutil.Process().children(recursive=True) == processes


def test_two_loads_send_the_same_requests(new_load: Callable[[str], Load], url: str) -> None:
    first, second = new_load(url), new_load(url)
    run(first)
    run(second)
    asked = [{r.index: (r.isl_tokens, r.osl_tokens) for r in load.records()} for load in (first, second)]
    both = asked[0].keys() & asked[1].keys()
    assert len(both) >= 3 * CONCURRENCY
    assert {index: asked[0][index] for index in both} == {index: asked[1][index] for index in both}
