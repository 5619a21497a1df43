"""The tools whose results are read, and which of them a file is of."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.importers import aiperf, benchmark_serving, inferencex, mlenergy, trtllm_bench
from pipeline.importers.foreign_file import ANY_TOOL, Document, ForeignFile, read_file
from pipeline.importers.reported import Read


class Importer(NamedTuple):
    """How one tool's files are told and read."""

    recognises: Callable[[ForeignFile], bool]
    read: Callable[[ForeignFile], Read]


IMPORTERS = {
    trtllm_bench.TOOL: Importer(trtllm_bench.recognises, trtllm_bench.read),
    inferencex.TOOL: Importer(inferencex.recognises, inferencex.read),
    mlenergy.TOOL: Importer(mlenergy.recognises, mlenergy.read),
    aiperf.TOOL: Importer(aiperf.recognises, aiperf.read),
    benchmark_serving.VLLM: Importer(benchmark_serving.recognises, benchmark_serving.read),
    benchmark_serving.OTHER: Importer(benchmark_serving.recognises, benchmark_serving.read),
}
"""By the name that `tpw import NAME` takes; without one, the first that recognises a file reads it."""

_NAMES = ", ".join(IMPORTERS)

SIDECARS = {
    ("integration_method",): "is the sidecar of an InferenceX point: the figures are in its agg_*.json",
    ("metadata", "aggregation_type"): "is AIPerf's summary of several runs: give each run's profile_export_aiperf.json",
}
"""Where files that stand beside results have something -> what to do."""


def read_foreign(path: Path, tool: str | None) -> Read:
    """Read a file of a tool; None recognises it.

    Raises:
        ConfigError: If it cannot be read, or is of no such tool.
    """
    file = read_file(path, ANY_TOOL if tool is None else f"give a result of {tool}")
    importer = (
        IMPORTERS.get(tool) if tool else next((each for each in IMPORTERS.values() if each.recognises(file)), None)
    )
    if importer is not None:
        return importer.read(file)
    beside = Document(str(path), file.content)
    said = (text for keys, text in SIDECARS.items() if beside.value(*keys) is not None)
    raise ConfigError(f"{path}: {next(said, f'is of no tool known here; known: {_NAMES}')}")
