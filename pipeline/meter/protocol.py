"""What a meter promises: cumulative joules per device with the time of each tick, on the monotonic clock.

A meter samples in the background from `__enter__` to `__exit__`. It never invents a value: a device that
stops answering stops ticking and `faults` says why; a counter that goes backwards is a fault too.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:  # the sampling process takes the samples from here and does not wait for Arrow
    from pipeline.vocabulary import Boundary, Evidence, Reason


@dataclass(frozen=True, slots=True)
class EnergyTick:
    """A cumulative energy reading at the moment it changed.

    Attributes:
        t_ns: Monotonic clock (`time.monotonic_ns`), nanoseconds.
        energy_j: Joules since some fixed origin; never decreases.
    """

    t_ns: int
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """Power of one device; None where the device does not answer.

    Attributes:
        t_ns: Monotonic clock, nanoseconds.
        power_w: Instantaneous board power.
        power_average_w: The driver's trailing one-second average.
        memory_power_w: The driver's trailing average of the memory's share.
        field_t_us: When the driver says it took `power_w`, wall clock, microseconds since 1970.
    """

    t_ns: int
    power_w: float | None = None
    power_average_w: float | None = None
    memory_power_w: float | None = None
    field_t_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSample:
    """State of one device; None where the device does not answer.

    Attributes:
        t_ns: Monotonic clock, nanoseconds.
        temperature_c: GPU temperature.
        memory_temperature_c: Memory temperature.
        sm_clock_mhz: SM clock.
        memory_clock_mhz: Memory clock.
        gpu_busy: Share of the driver's last sample period in which a kernel ran.
        power_limit_w: Enforced power limit.
        thermal_ns: Cumulative ns held back for heat.
        brake_ns: Cumulative ns held back by a power brake.
        power_cap_ns: Cumulative ns held back by the power limit.
        compute_pids: Processes that hold a context on it, as its driver numbers them.
    """

    t_ns: int
    temperature_c: float | None = None
    memory_temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    gpu_busy: float | None = None
    power_limit_w: float | None = None
    thermal_ns: int | None = None
    brake_ns: int | None = None
    power_cap_ns: int | None = None
    compute_pids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """What has been read of one device so far, in order of time.

    Attributes:
        ticks: Energy readings, one per change of the counter.
        samples: Power samples; empty where the meter has no second reading.
        states: State samples; empty where the device has none.
    """

    ticks: list[EnergyTick] = field(default_factory=list)
    samples: list[PowerSample] = field(default_factory=list)
    states: list[StateSample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterInfo:
    """What this meter is.

    Attributes:
        name: As chosen by `meter=`.
        description: One line for the user, with every declared parameter.
        boundary: What the joules cover.
        evidence: `measured` for a device's sensor, `estimated` for a declared model, `simulated` for a fake.
        devices: UUIDs, in the order of the deployment's devices.
        device_name: Common name of the devices, or None.
        driver_version: Driver behind the sensor, or None.
        pin: Environment variables that hold an engine to the metered devices.
    """

    name: str
    description: str
    boundary: "Boundary"
    evidence: "Evidence"
    devices: tuple[str, ...]
    device_name: str | None = None
    driver_version: str | None = None
    pin: dict[str, str] = field(default_factory=dict)


class Meter(Protocol):
    """Cumulative energy of a fixed set of devices."""

    info: MeterInfo

    def __enter__(self) -> Self:
        """Start sampling.

        Raises:
            MeterError: If the first reading fails.
        """
        ...

    def __exit__(self, *exc: object) -> None:
        """Stop sampling; no thread or handle is left."""
        ...

    def reading(self) -> dict[str, DeviceReading]:
        """A consistent copy of everything read so far, by device UUID. Non-blocking."""
        ...

    def faults(self) -> "tuple[Reason, ...]":
        """What went wrong since the start, e.g. counter_reset, no_energy; empty when nothing did."""
        ...
