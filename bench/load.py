"""What the load client costs: `python -m bench.load` prints CPU microseconds per streamed chunk, as JSON.

A server in another process streams one token per chunk at a fixed pace to many streams. That is the client's worst
case: chunks hardly ever arrive together, so nearly every one is a read of its own. The CPU time is that of the
client's thread, kernel included, and has the drawing and sending of prompts in it. On a busy machine the server falls
behind and chunks do arrive together, which flatters the client: trust a figure whose `chunks_per_read` is near 1.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from pipeline.load.client import ClosedLoop
from pipeline.study import Workload

NUM_STREAMS = 256
TOKENS_PER_S_PER_STREAM = 60.0
WARMUP_S = 2.0
"""Every stream has connected and sent its prompt by then."""

WINDOW_S = 6.0
VOCAB_SIZE = 128_000
WORKLOAD = Workload(
    name="bench", source="bench/load.py", isl_tokens=1024, osl_tokens=1024, length_ratio_min=0.8,
    concurrency=(NUM_STREAMS,),
)  # fmt: skip


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
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: list[bytes], period_s: float
) -> None:
    """Answer the requests of one connection, one chunk per period, until the client leaves."""
    loop = asyncio.get_running_loop()
    while head := await reader.readuntil(b"\r\n\r\n"):
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        osl_tokens = re.search(rb'"max_tokens": *(\d+)', await reader.readexactly(int(length[1]) if length else 0))
        writer.write(HEAD)
        due_s = loop.time()
        for data in chunks[: int(osl_tokens[1]) if osl_tokens else 0]:
            due_s += period_s
            await asyncio.sleep(due_s - loop.time())
            if writer.is_closing():
                return
            writer.write(data)
        writer.write(END)


async def serve(port: "Connection[int, None]") -> None:
    """Listen on a free port, tell it, and serve until the process is ended."""
    chunks = [chunk(token + 1) for token in range(WORKLOAD.osl_tokens)]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer, chunks, 1 / TOKENS_PER_S_PER_STREAM)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # the client has left

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=NUM_STREAMS)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run_server(port: "Connection[int, None]") -> None:
    """Entry point of the server's process."""
    asyncio.run(serve(port))


@contextmanager
def paced_server() -> Iterator[str]:
    """The server in a process of its own; yields its address."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=run_server, args=(sender,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}"
    finally:
        process.terminate()
        process.join()


def measure(window_s: float) -> dict[str, float]:
    """Run the client against the server and read its CPU time over one window.

    Raises:
        SystemExit: If requests failed, or nothing was streamed.
    """
    with paced_server() as url, ClosedLoop(url, "bench", WORKLOAD, VOCAB_SIZE, NUM_STREAMS) as load:
        time.sleep(WARMUP_S)
        before, began = load.snapshot(), time.monotonic()
        time.sleep(window_s)
        after, elapsed_s = load.snapshot(), time.monotonic() - began
    if after.num_failed or after.output_tokens == before.output_tokens:
        raise SystemExit(f"the benchmark failed: {after}")
    chunks = after.output_tokens - before.output_tokens
    read_times_ns = [t_ns for record in load.records() for t_ns in record.event_t_ns]
    cpu_us_per_chunk = (after.client_cpu_s - before.client_cpu_s) * 1e6 / chunks
    return {
        "client_cpu_us_per_chunk": round(cpu_us_per_chunk, 2),
        "ceiling_chunks_per_s_per_core": round(1e6 / cpu_us_per_chunk),
        "chunks": chunks,
        "streams": NUM_STREAMS,
        "chunks_per_read": round(len(read_times_ns) / len(set(read_times_ns)), 2),
        "chunks_per_s": round(chunks / elapsed_s),
        "chunks_per_s_wanted": round(NUM_STREAMS * TOKENS_PER_S_PER_STREAM),
    }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window-s", type=float, default=WINDOW_S)
    print(json.dumps(measure(parser.parse_args().window_s)))


if __name__ == "__main__":
    main()
