"""Is a bundle still what was measured? Recomputes its hashes, and compares its rows with those that are stored."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bundle import compose_file, dynamo, kubernetes
from pipeline.bundle.headline import at_load
from pipeline.bundle.launch import RUN
from pipeline.bundle.measured import RENDERED_KNOB
from pipeline.bundle.write import DECISION, HASHES, RENDERED, SCHEMA_VERSION, STATE
from pipeline.engine.folder import SCRIPT, start_commands
from pipeline.engine.protocol import Rendered
from pipeline.errors import ConfigError, StoreError
from pipeline.record import Row
from pipeline.store import Store

OF_HEADLINE = ("output_tokens_per_joule", "low", "high", "again_rel", "num_starts")

MANIFESTS: Mapping[str, Callable[[str], None]] = {
    "compose.yaml": compose_file.check,
    "kubernetes.yaml": kubernetes.check,
    "dynamo.yaml": dynamo.check,
}


NEEDED = (
    "name", "config", "rendered_hash", "rows", "files", "headline", "versions", "autotuner_cache", "num_machines",
    "gpu_uuids", "study",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of it.

    Attributes:
        agreed: What was compared and is equal, a line each.
        differences: What is not, a line each.
        not_compared: What could not be compared here.
    """

    agreed: tuple[str, ...]
    differences: tuple[str, ...]
    not_compared: tuple[str, ...]


def is_bundle(folder: Path) -> bool:
    """Whether a folder is meant as one."""
    return (folder / DECISION).is_file()


def read_facts(folder: Path) -> dict[str, Any]:
    """`bundle` of a bundle's decision.json, with what is read of it here and in live.py.

    Raises:
        ConfigError: If it is no bundle, or one of a newer version.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / DECISION).read_text(encoding="utf-8"))["bundle"]
        version, _ = int(facts["schema_version"]), [facts[key] for key in NEEDED]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / DECISION}: is no decision of a bundle ({error!r}); name a folder of engines/production"
        ) from error
    if version > SCHEMA_VERSION:
        raise ConfigError(f"{folder}: bundle of version {version}, this program knows {SCHEMA_VERSION}; update it")
    return facts


def read_rendered(folder: Path) -> Rendered:
    """The files, argv and env of a bundle, with placeholders.

    Raises:
        ConfigError: If they cannot be read.
    """
    try:
        found = json.loads((folder / RENDERED).read_text(encoding="utf-8"))
        return Rendered(files=found["files"], argv=tuple(found["argv"]), env=found["env"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / RENDERED}: cannot be read ({error!r}); restore it, or write the bundle anew"
        ) from error


def verify_bundle(folder: Path, store: Store) -> Verification:
    """Compare a bundle with itself and with the stored rows.

    Args:
        folder: The bundle.
        store: Results; the rows that are not there are not compared.

    Raises:
        ConfigError: If the folder is no bundle.
        StoreError: If stored rows cannot be read.
    """
    facts, rendered = read_facts(folder), read_rendered(folder)
    stored = {
        row.row_id: row.to_dict() for study in {row["study_id"] for row in facts["rows"]} for row in store.rows(study)
    }
    found = [row for row in facts["rows"] if row["row_id"] in stored]
    differences = [
        *_changed_files(folder),
        *_other_bytes(folder, facts, rendered),
        *_other_number(facts),
        *_broken_manifests(folder, facts),
        *(line for row in found for line in _row_differences(row, stored[row["row_id"]])),
    ]
    missing = [row["row_id"] for row in facts["rows"] if row["row_id"] not in stored]
    return Verification(
        agreed=()
        if differences
        else (
            f"{len(_listed(folder))} files are as they were written",
            f"rendered_hash {facts['rendered_hash']} follows from the files; all {len(facts['rows'])} rows have it",
            *([f"{len(found)} rows are equal to those in {store.results_dir}"] if found else []),
        ),
        differences=tuple(differences),
        not_compared=(f"rows {', '.join(missing)} are not in {store.results_dir}",) if missing else (),
    )


def _listed(folder: Path) -> dict[str, str]:
    """SHA-256 by file, of SHA256SUMS.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        lines = (folder / HASHES).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / HASHES}: cannot be read ({error}); restore it, or write the bundle anew"
        ) from error


def _changed_files(folder: Path) -> Iterator[str]:
    listed = _listed(folder)
    there = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != STATE
    }
    for name, digest in listed.items():
        if name not in there:
            yield f"{name}: is missing"
        elif (now := hashlib.sha256(there[name].read_bytes()).hexdigest()) != digest:
            yield f"{name}: SHA-256 is {now[:16]}, {HASHES} says {digest[:16]}"
    yield from (f"{name}: is no part of the bundle" for name in there if name not in {*listed, HASHES})


def _other_bytes(folder: Path, facts: Mapping[str, Any], rendered: Rendered) -> Iterator[str]:
    """Differences between what would be started, what is said of it, and what was measured."""
    if rendered.rendered_hash != facts["rendered_hash"]:
        yield f"{RENDERED}: hashes to {rendered.rendered_hash}, {DECISION} says {facts['rendered_hash']}"
    for row in facts["rows"]:
        measured = row["rendered_hash"]
        if row["engine"] == "attached":
            measured = json.loads(row["config_json"]).get(RENDERED_KNOB)
        if measured != rendered.rendered_hash:
            yield f"row {row['row_id']}: was measured as {measured}, the files are {rendered.rendered_hash}"
    for name, text in rendered.files.items():
        if name != SCRIPT and ((folder / name).read_bytes() if (folder / name).is_file() else b"") != text.encode():
            yield f"{name}: is not the file of {RENDERED}"
    run = folder / RUN
    if run.is_file() and start_commands(rendered) not in run.read_text(encoding="utf-8").replace(".filled.", "."):
        yield f"{RUN}: does not start the command line and environment of {RENDERED}"
    for cache in facts["autotuner_cache"]:
        path = folder / cache["file"]
        now = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if now != cache["sha256"]:
            yield f"{cache['file']}: is {now[:16]}, the measured start left {cache['sha256'][:16]}"


def _other_number(facts: Mapping[str, Any]) -> Iterator[str]:
    """Whether the promised number does not follow from the rows."""
    head = facts["headline"]
    try:
        rows = [Row.from_dict(row) for row in facts["rows"] if row["row_id"] in head["row_ids"]]
        own = dataclasses.asdict(at_load(rows))
        names = [name for name in OF_HEADLINE if not _is_close(head[name], own[name])]
    except (KeyError, TypeError, ValueError, IndexError, StoreError) as error:
        yield f"headline: cannot be computed from the rows ({error!r})"
        return
    yield from (f"headline: {name} is {head[name]} in {DECISION}, the rows give {own[name]}" for name in names)


def _is_close(one: float | None, other: float | None) -> bool:
    """But for rounding, as another version of numpy may sum otherwise."""
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)


def _broken_manifests(folder: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    for name, check in MANIFESTS.items():
        if name not in facts["files"] or not (folder / name).is_file():
            continue
        try:
            check((folder / name).read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"{name}: breaks its schema ({' '.join(str(error).split())[:300]})"


def _row_differences(ours: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    for name, value in ours.items():
        if name in stored and json.loads(json.dumps(stored[name])) != value:
            yield f"row {ours['row_id']}: {name} is {value} in {DECISION}, {stored[name]} in the results"
