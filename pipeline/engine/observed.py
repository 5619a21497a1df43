"""What can be seen of a running engine from outside: its processes, its kernel caches, its log, its own counters."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """One process of the engine.

    Attributes:
        pid: As this machine numbers it.
        name: Short name.
        cpu_s: CPU seconds it and the children it has waited for have used.
    """

    pid: int
    name: str
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """The engine and its machine at one moment; None where that cannot be seen.

    Attributes:
        t_ns: Monotonic clock, nanoseconds.
        num_cores: Logical cores of the machine.
        busy_s: CPU seconds that all cores have worked since boot.
        steal_s: CPU seconds that another virtual machine had a core that was wanted here.
        processes: The engine's processes; None where they cannot be seen (attached, other machine).
        num_cached_kernels: Files in the kernel caches that the engine writes to.
        num_compile_lines: Lines of its log so far that tell of a kernel being compiled or tuned.
    """

    t_ns: int
    num_cores: int
    busy_s: float
    steal_s: float
    processes: tuple[ProcessSample, ...] | None = None
    num_cached_kernels: int | None = None
    num_compile_lines: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSample:
    """What the engine counts itself; None where it does not say.

    All but the three gauges in the middle count from when it started.

    Attributes:
        t_ns: Midpoint of the reading, monotonic clock, nanoseconds.
        output_tokens: Generated.
        num_running: Requests in the running batch.
        num_waiting: Requests queued.
        kv_cache_use: Share of the KV cache in use, 0 to 1.
        num_preemptions: Requests evicted and computed again.
        energy_j: Joules of its GPUs by its own reading.
        energy_t_ns: When that was read, monotonic clock, nanoseconds.
        finished_tokens: Generated for the requests that have finished.
        num_ttfts: Finished requests whose time to first token it knows.
        ttft_sum_s: Sum of these times, by its own clock from the request's arrival in the engine.
        num_queued: Finished requests whose time in its queue it knows.
        queue_sum_s: Sum of these times, arrival to first scheduled.
    """

    t_ns: int
    output_tokens: int | None = None
    num_running: float | None = None
    num_waiting: float | None = None
    kv_cache_use: float | None = None
    num_preemptions: int | None = None
    energy_j: float | None = None
    energy_t_ns: int | None = None
    finished_tokens: int | None = None
    num_ttfts: int | None = None
    ttft_sum_s: float | None = None
    num_queued: int | None = None
    queue_sum_s: float | None = None
