"""The two sides of a comparison: a server that runs, or a config that is started here for as long as it is asked."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config import read_engine_config
from pipeline.engine.attached import AttachedServer
from pipeline.engine.catalog import find_engine
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.errors import ConfigError, EngineError
from pipeline.held import held
from pipeline.quality.answers import Endpoint
from pipeline.resume import study_of
from pipeline.rig.catalog import open_rig
from pipeline.rig.protocol import TrialError
from pipeline.rig.served import ServedRig
from pipeline.store import Store
from pipeline.study import Study

DECISION = "decision.json"
"""Of a folder of engines/production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A candidate or a reference.

    Attributes:
        role: candidate or reference.
        name: As the user named it.
        url: Of a server that runs; None for a config.
        study: What it is started under; None for a url.
        config: The config.
        rendered_hash: Hash of what it was measured as, for a trial or a bundle: it must be started from the same.
    """

    role: str
    name: str
    url: str | None = None
    study: Study | None = None
    config: EngineConfig | None = None
    rendered_hash: str | None = None

    def columns(self, started: "Started") -> dict[str, Any]:
        """Its columns of a `Finding`."""
        return {
            self.role: self.name,
            f"{self.role}_rendered_hash": started.rendered_hash,
            f"{self.role}_config_json": canonical_json(self.config.requested()) if self.config else None,
            f"{self.role}_engine": started.engine,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A side that answers.

    Attributes:
        endpoint: Where.
        engine: Engine and version.
        rendered_hash: Hash of what it was started from; None for a url.
    """

    endpoint: Endpoint
    engine: str
    rendered_hash: str | None = None


def find_side(role: str, name: str, study: Callable[[], Study], store: Store) -> Side:
    """What the user means: a url, a YAML file of a config, a folder of engines/production, or a trial.

    Args:
        role: candidate or reference.
        name: As given.
        study: Composes the study of a YAML file.
        store: Results, for trials.

    Raises:
        ConfigError: If it is none of these, or was not started by this tool.
        StoreError: If results cannot be read.
    """
    if name.startswith(("http://", "https://")):
        return Side(role=role, name=name, url=name.rstrip("/"))
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        found = study()
        return _of_config(role, name, found, read_engine_config(path, found.engine.name, key=role))
    if (path / DECISION).is_file():
        return _of_bundle(role, name, path)
    trials = [trial for each in store.studies() for trial in store.trials(each) if trial.trial_id.startswith(name)]
    if not name or len(trials) != 1:
        raise ConfigError(
            f"{role}={name}: is {'the beginning of several trials' if trials else 'nothing known'}; give the url of a "
            f"server, a YAML file of a config, a folder of engines/production, or a trial's id, of {store.results_dir}"
        )
    (trial,) = trials
    config = EngineConfig.from_axes(trial.engine, json.loads(trial.config_json))
    return _of_config(role, name, study_of(trial), config, trial.rendered_hash)


@contextmanager
def serving(side: Side, quality_id: str, timeout_s: float, report: Callable[[str], None]) -> Iterator[Started]:
    """The side as a server that answers.

    Raises:
        ConfigError: If it does not start, or as something else than was measured, or nothing answers at its url.
        EngineError: If its engine is not to be had here.
        MeterError: If the GPUs that it is to run on cannot be read.
    """
    if side.url is not None:
        endpoint, version = _endpoint(side, side.url, timeout_s)
        yield Started(endpoint=endpoint, engine=version)
        return
    assert side.study is not None  # noqa: S101  # a side without url has them
    assert side.config is not None  # noqa: S101
    rig, name = open_rig(side.study), f"{side.role}={side.name}"
    if not isinstance(rig, ServedRig):
        raise ConfigError(f"{name}: rig={side.study.rig} starts nothing; use rig=served")
    if reason := rig.refusal(side.config):
        raise ConfigError(f"{name}: {reason}")
    rendered_hash = find_engine(rig.study).render(side.config, rig.study).rendered_hash
    if side.rendered_hash not in {None, rendered_hash}:
        raise ConfigError(
            f"{name}: was measured as rendered_hash={side.rendered_hash}, {side.config.engine} {rig.engine_version} "
            f"here starts as {rendered_hash}; check it with the version that was measured, or give its config as YAML"
        )
    try:
        with rig.start(side.config, f"quality-{quality_id}-{side.role}", report) as session:
            endpoint, _ = _endpoint(side, session.url, timeout_s)
            engine = " ".join(filter(None, (side.config.engine, rig.engine_version)))
            yield Started(endpoint=endpoint, engine=engine, rendered_hash=rendered_hash)
    except TrialError as error:
        raise ConfigError(f"{name}: does not start: {error}") from error


def _endpoint(side: Side, url: str, timeout_s: float) -> tuple[Endpoint, str]:
    try:
        with AttachedServer(url) as server:
            model, version = server.served_model(None), server.version()
    except EngineError as error:
        raise ConfigError(f"{side.role}={side.name}: {error}") from error
    return Endpoint(side=side.role, url=url, model=model, timeout_s=timeout_s), version or "version unknown"


def _of_config(role: str, name: str, study: Study, config: EngineConfig, rendered_hash: str | None = None) -> Side:
    """A config to start.

    Raises:
        ConfigError: If it is of a server that someone else started.
    """
    if config.engine == "attached":
        raise ConfigError(f"{role}={name}: is of a server that someone else started; start it and give its url")
    return Side(role=role, name=name, study=study, config=config, rendered_hash=rendered_hash)


def _of_bundle(role: str, name: str, folder: Path) -> Side:
    try:
        facts = json.loads((folder / DECISION).read_text(encoding="utf-8"))["bundle"]
        study = TypeAdapter(Study).validate_json(json.dumps(facts["study"]))
        config = EngineConfig.from_axes(study.engine.name, facts["config"])
        rendered_hash = str(facts["rendered_hash"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{role}={name}: is no bundle that this version can read ({error!r})") from error
    return _of_config(role, name, study, config, rendered_hash)


def shared_facts(candidate: Side, reference: Side) -> dict[str, str | None]:
    """Model and weights, as far as a side that is started here tells.

    Raises:
        ConfigError: If they differ.
    """
    studies = [side.study for side in (candidate, reference) if side.study is not None]
    for key in ("model.name", "weights", "weights_seed"):
        own, *others = (held(study)[key] for study in studies) if studies else (None,)
        if others and own != others[0]:
            raise ConfigError(
                f"candidate={candidate.name}: {key}={own}, reference={reference.name} has {others[0]}; compare "
                "configs of one model and one kind of weights"
            )
    return {"model": studies[0].model.name, "weights": studies[0].weights} if studies else {}
