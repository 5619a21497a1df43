"""What the load client costs: `python -m bench.load` prints CPU microseconds per streamed chunk, as JSON.

A server in another process streams one token per chunk at a fixed pace to many streams. That is the client's worst
case: chunks hardly ever arrive together, so nearly every one is a read of its own. The CPU time is that of all the
client's processes, kernel included, and has the drawing and sending of prompts in it. On a busy machine the server
falls behind and chunks do arrive together, which flatters the client, and shared caches and cores slow it down: trust
a figure whose `chunks_per_read` is near 1, and the least of several.

With --aiperf, AIPerf then streams from the same server, from its own environment. Its CPU time is that of its process
tree over the whole run, start-up included, per chunk that the server sent.
"""

import argparse
import asyncio
import ctypes
import json
import multiprocessing
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import uvloop

from bench.aiperf import Run, run_aiperf
from pipeline.load.client import LoadClient
from pipeline.load.protocol import ClientSample
from pipeline.percentile import percentile
from pipeline.workload import OperatingPoint, Workload

NUM_STREAMS = 256
TOKENS_PER_S_PER_STREAM = 60.0
WARMUP_S = 2.0
"""Every stream has connected and sent its prompt by then."""

WINDOW_S = 6.0
VOCAB_SIZE = 128_000
WORKLOAD = Workload(
    name="bench", source="bench/load.py", isl_tokens=1024, osl_tokens=1024, length_ratio_min=0.8,
)  # fmt: skip
POINT = OperatingPoint(concurrency=NUM_STREAMS)


def chunk(num_tokens: int) -> bytes:
    """One chunk in HTTP framing, as long as vLLM's with running usage."""
    event = {
        "id": "cmpl-" + 32 * "0", "object": "text_completion", "created": 1_700_000_000, "model": "bench",
        "choices": [{"index": 0, "text": " token", "logprobs": None, "finish_reason": None, "stop_reason": None}],
        "usage": {"prompt_tokens": 1024, "total_tokens": 1024 + num_tokens, "completion_tokens": num_tokens},
    }  # fmt: skip
    return framed(b"data: " + json.dumps(event).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    """One chunk of HTTP's chunked transfer encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: list[bytes], num_sent: "ctypes.c_int64"
) -> None:
    """Answer the requests of one connection, one chunk per period, until the client leaves."""
    loop = asyncio.get_running_loop()
    while head := await reader.readuntil(b"\r\n\r\n"):
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        osl_tokens = re.search(rb'"max_tokens": *(\d+)', await reader.readexactly(int(length[1]) if length else 0))
        writer.write(HEAD)
        due_s = loop.time()
        for data in chunks[: int(osl_tokens[1]) if osl_tokens else 0]:
            due_s += 1 / TOKENS_PER_S_PER_STREAM
            await asyncio.sleep(due_s - loop.time())
            if writer.is_closing():
                return
            writer.write(data)
            num_sent.value += 1
        writer.write(END)


async def serve(port: "Connection[int, None]", num_sent: "ctypes.c_int64") -> None:
    """Listen on a free port, tell it, and serve until the process is ended."""
    chunks = [chunk(token + 1) for token in range(WORKLOAD.osl_tokens)]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer, chunks, num_sent)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # the client has left

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=NUM_STREAMS)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run_server(port: "Connection[int, None]", num_sent: "ctypes.c_int64") -> None:
    """Entry point of the server's process."""
    uvloop.run(serve(port, num_sent))


@contextmanager
def paced_server() -> Iterator[tuple[str, "ctypes.c_int64"]]:
    """The server in a process of its own; yields its address and the number of chunks that it has sent."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    num_sent = spawn.RawValue(ctypes.c_int64)
    process = spawn.Process(target=run_server, args=(sender, num_sent), daemon=True)
    process.start()
    sender.close()  # so that a server that dies ends the wait for its port
    try:
        yield f"http://127.0.0.1:{receiver.recv()}", num_sent
    finally:
        process.terminate()
        process.join()


def measure(window_s: float, num_workers: int | None) -> dict[str, float | None]:
    """Run the client against the server and read its CPU time over one window.

    Raises:
        SystemExit: If requests failed, or nothing was streamed.
    """
    with paced_server() as (url, _), LoadClient(url, "bench", WORKLOAD, VOCAB_SIZE, POINT, num_workers) as load:
        time.sleep(WARMUP_S)
        before, open_ns = load.snapshot(), time.monotonic_ns()
        time.sleep(window_s)
        after, close_ns = load.snapshot(), time.monotonic_ns()
    chunks = after.output_tokens - before.output_tokens
    if after.num_failed or not chunks:
        raise SystemExit(f"the benchmark failed: {after}")
    samples = [sample for sample in load.client_samples() if open_ns <= sample.t_ns < close_ns]
    read_times_ns = [t_ns for r in load.records() for t_ns in r.event_t_ns if open_ns <= t_ns < close_ns]
    chunks_per_s = chunks / ((close_ns - open_ns) * 1e-9)
    cpu_us_per_chunk = cpu_share(samples) * 1e6 / chunks_per_s
    return {
        "client_cpu_us_per_chunk": round(cpu_us_per_chunk, 2),
        "ceiling_chunks_per_s_per_core": round(1e6 / cpu_us_per_chunk),
        "chunks_per_read": round(len(read_times_ns) / len(set(read_times_ns)), 3),
        "lag_p99_s": percentile([sample.lag_s for sample in samples], 0.99),
        "chunks": chunks,
        "chunks_per_s": round(chunks_per_s),
        "chunks_per_s_wanted": round(NUM_STREAMS * TOKENS_PER_S_PER_STREAM),
        "streams": NUM_STREAMS,
        "workers": len({sample.worker for sample in samples}),
    }


def cpu_share(samples: list[ClientSample]) -> float:
    """CPU seconds per second, all workers together."""
    first = {sample.worker: sample for sample in reversed(samples)}
    last = {sample.worker: sample for sample in samples}
    return sum(
        (last[worker].cpu_s - sample.cpu_s) / ((last[worker].t_ns - sample.t_ns) * 1e-9)
        for worker, sample in first.items()
    )


def measure_aiperf(window_s: float) -> dict[str, float]:
    """Run AIPerf against the server, for as long as the client."""
    with paced_server() as (url, num_sent):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_aiperf(
            Run(
                url=url, model="bench", workload=WORKLOAD, vocab_size=VOCAB_SIZE, point=POINT, warmup_s=WARMUP_S,
                window_s=window_s,
            )
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "aiperf_cpu_us_per_chunk_start_up_included": round(cpu_s * 1e6 / num_sent.value, 2),
            "aiperf_chunks": num_sent.value,
        }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window-s", type=float, default=WINDOW_S)
    parser.add_argument("--workers", type=int, help="processes of the client; its own choice if left out")
    parser.add_argument("--aiperf", action="store_true", help="measure AIPerf too")
    options = parser.parse_args()
    figures = measure(options.window_s, options.workers)
    if options.aiperf:
        figures |= measure_aiperf(options.window_s)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
