"""One engine folder and nothing started: what a config or a split deployment is rendered to, and what is said of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.disaggregation import Deployment
from pipeline.engine.folder import write_definition
from pipeline.engine.process import OWN_PLACES
from pipeline.engine.protocol import Engine, Rendered
from pipeline.engine.trtllm.disaggregated import num_machines, render_deployment
from pipeline.engine.trtllm.llm_args import draft_model
from pipeline.engine.trtllm.multinode import ENERGY_NOTE, SLURM_NOTE, across_nodes, num_nodes
from pipeline.engine.trtllm.versions import NEWEST
from pipeline.engine_config import EngineConfig, canonical_json
from pipeline.errors import ConfigError, EngineError
from pipeline.precision import formats
from pipeline.resume import study_json
from pipeline.search.prior import modelled_value
from pipeline.study import Study

EVIDENCE = "rendered, not run"

DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """One folder to be.

    Attributes:
        rendered: Its files, argv and env.
        requested: The config or deployment, explicitly set keys only, as JSON.
        meta: What its meta.json says.
        values: Placeholder -> its value on this machine.
        num_nodes: Machines that it is started on.
        draft_model: Repository or folder of the model that drafts, if one does.
    """

    rendered: Rendered
    requested: str
    meta: dict[str, Any]
    values: Mapping[str, str]
    num_nodes: int
    draft_model: str | None = None

    @property
    def name(self) -> str:
        """The folder's."""
        return self.rendered.rendered_hash


def of_config(config: EngineConfig, proposed_by: str, study: Study, engine: Engine) -> Rendering:
    """A config's folder; over several machines where one has too few GPUs.

    Raises:
        ConfigError: If it cannot be rendered.
    """
    rendered, nodes = engine.render(config, study), 1
    if study.engine.name == "trtllm":
        rendered = across_nodes(rendered, config, study)
        nodes = num_nodes(config.parallelism.num_gpus, study.hardware)
    host, port = study.engine.host, study.engine.port or DEFAULT_PORT
    declared = [f"{key}={_text(value)}" for key, value in config.requested().items() if "knobs" not in key]
    num_gpus = config.parallelism.num_gpus
    measure = _measure(study, num_gpus, f"http://{host}:{port}", rendered, declared) if nodes == 1 else None
    meta = _meta(study, engine, config, rendered, nodes, num_gpus)
    meta |= {
        "config_hash": config.config_hash,
        "config": config.requested(),
        "proposed_by": proposed_by,
        "modelled_output_tokens_per_joule": modelled_value(study, config) or None,
        "measure": measure,
    }
    return Rendering(
        rendered=rendered,
        requested=canonical_json(config.requested()),
        meta=meta,
        values=_values(config, study, engine),
        num_nodes=nodes,
        draft_model=_draft_model(config, study),
    )


def of_deployment(deployment: Deployment, study: Study, engine: Engine) -> Rendering:
    """A split deployment's folder.

    Raises:
        ConfigError: If it cannot be rendered.
    """
    rendered, nodes = render_deployment(deployment, study), num_machines(deployment, study)
    config = deployment.context
    url = f"http://{study.engine.host}:{study.engine.port or DEFAULT_PORT}"
    # It answers for many servers, whose configs one row cannot declare.
    declared = [f"precision.weights={config.precision.weights}", f"engine.served_model={study.model.name}"]
    meta = _meta(study, engine, config, rendered, nodes, deployment.num_gpus)
    meta["notes"] += ["Energy counts the GPUs of every server."]
    meta |= {
        "config_hash": deployment.config_hash,
        "config": deployment.requested(),
        "study": json.loads(study_json(study)),
        "proposed_by": "axes",
        "modelled_output_tokens_per_joule": None,
        "measure": _measure(study, deployment.num_gpus, url, rendered, declared) if nodes == 1 else None,
    }
    return Rendering(
        rendered=rendered,
        requested=canonical_json(deployment.requested()),
        meta=meta,
        values=_values(deployment.generation, study, engine),
        num_nodes=nodes,
        draft_model=_draft_model(deployment.generation, study),
    )


def write(rendering: Rendering, out: Path) -> Path:
    """Write a folder below `out`.

    Raises:
        ConfigError: If its path has a space that its start would trip over.
        OSError: If it cannot be written.
    """
    folder = out / rendering.name
    if rendering.num_nodes > 1 and len(str(folder.absolute()).split()) > 1:
        raise ConfigError(f"out={out}: trtllm-llmapi-launch splits its arguments at spaces; choose a path without any")
    meta, repo = rendering.meta, rendering.meta["model"]["repo"]
    version = " ".join(part for part in (meta["engine"], meta["version"]) if part)
    comments = [
        f"{version}: {EVIDENCE}. {meta['model']['name']}, {repo} ({meta['model']['format']} weights).",
        *meta["notes"],
        *([f"Measure it: {meta['measure']}"] if meta["measure"] else []),
    ]
    revision = f" --revision {meta['model']['revision']}" if meta["model"]["revision"] else ""
    wanted = {"model": f"set it to the folder of {repo}, which `hf download {repo}{revision}` prints"}
    if (draft := rendering.draft_model) is not None:
        wanted["draft_model"] = f"set it to the folder of {draft}, which `hf download {draft}` prints"
    write_definition(
        folder,
        rendering.rendered,
        meta,
        values=rendering.values,
        wanted=wanted,
        comments=comments,
    )
    return folder


def _meta(
    study: Study, engine: Engine, config: EngineConfig, rendered: Rendered, nodes: int, num_gpus: int
) -> dict[str, Any]:
    """What meta.json says of every rendering."""
    checkpoint = study.model.checkpoints[config.precision.weights]
    found = formats(config, study.model, study.hardware)
    version = study.engine.version or (NEWEST if engine.name == "trtllm" else None)
    program = {"trtllm": "trtllm-serve on the PATH", "vllm": "PYTHON to have vLLM"}.get(engine.name, "its engine")
    where = f"Run it within {study.engine.image}." if study.engine.image else f"It needs {program}."
    return {
        "rendered_hash": rendered.rendered_hash,
        "engine": engine.name,
        "version": version,
        "version_is_tested": engine.tested_version(version) if version else None,
        "image": study.engine.image,
        "evidence": EVIDENCE,
        "model": {
            "name": study.model.name,
            "repo": checkpoint.repo,
            "revision": checkpoint.revision,
            "format": checkpoint.format,
            "activations": found.activations if found else None,
            "kv_cache": found.kv_cache if found else None,
        },
        "weights": study.weights,
        "weights_init": rendered.weights_init,
        "hardware": {"name": study.hardware.name, "num_gpus": num_gpus, "num_nodes": nodes},
        "workload": study.workload.name,
        "notes": [where] if nodes == 1 else [SLURM_NOTE, ENERGY_NOTE],
    }


def _measure(study: Study, num_gpus: int, url: str, rendered: Rendered, declared: Sequence[str]) -> str:
    """The command that measures it once it runs, on GPUs that the user may have to number otherwise.

    Knobs are not declared one by one; `rendered` stands for all of them, and makes its rows a case of their own.
    """
    gpus = ",".join(map(str, range(num_gpus)))
    own = [f"num_gpus={num_gpus}", f"rendered={rendered.rendered_hash}", f"study=render-{rendered.rendered_hash}"]
    fixed = [f"model={study.model.name}", f"hardware={study.hardware.name}", f"workload={study.workload.name}"]
    return " ".join(["tpw measure", f"url={url}", f"gpus={gpus}", *own, *fixed, *declared])


def _values(config: EngineConfig, study: Study, engine: Engine) -> dict[str, str]:
    """Placeholders that have a value here; without their checkpoints on this machine the models have none."""
    values = {
        "host": study.engine.host,
        "port": str(study.engine.port or DEFAULT_PORT),
        "python": study.engine.python,
        **OWN_PLACES,
    }
    try:
        return values | engine.places(config, study)
    except (ConfigError, EngineError):
        return values


def _draft_model(config: EngineConfig, study: Study) -> str | None:
    return draft_model(config, study) if study.engine.name == "trtllm" else None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
