"""How a bundle is launched: run.sh, and what a container needs to run it.

The containers run the same run.sh, so that flags and environment are written once. It works in a folder of its own
(STATE), for engines add to their autotuner's cache: each start begins with the cache that was measured.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle.measured import Measured
from pipeline.engine.catalog import find_engine
from pipeline.engine.folder import SCRIPT, start_script
from pipeline.engine.process import OWN_PLACES
from pipeline.engine.trtllm.llm_args import draft_model
from pipeline.errors import ConfigError, EngineError

RUN = "run.sh"
DEFAULT_PORT = 8000

_SIDE = re.compile(r"\{side\}/([\w.]+)")

BUNDLE_DIR, STATE_DIR, MODEL_DIR, DRAFT_DIR = "/bundle", "/state", "/model", "/draft_model"
"""Paths within a container."""

KEEPS_ENTRYPOINT = frozenset({"trtllm"})
"""Engines whose image has an entry point that goes on with the command given: NVIDIA's sets up the driver's
compatibility libraries. That of vllm/vllm-openai is `vllm serve` (its docker/Dockerfile)."""

IMAGES = {"trtllm": "nvcr.io/nvidia/tensorrt-llm/release:{}", "vllm": "vllm/vllm-openai:v{}"}
"""Published images by version. Sources: TensorRT-LLM's and vLLM's documentation on Docker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a container needs to run run.sh.

    Attributes:
        image: Its image.
        is_measured_image: Whether it is the one that was measured.
        command: What it runs.
        keeps_entrypoint: Whether that is handed to the image's own entry point.
        env: Environment of run.sh.
        model: Path of the model within it, a file for the embedded engine.
        has_draft: Whether a draft model is mounted too.
        num_gpus: GPUs that it reserves.
    """

    image: str
    is_measured_image: bool
    command: tuple[str, ...]
    keeps_entrypoint: bool
    env: Mapping[str, str]
    model: str
    has_draft: bool
    num_gpus: int
    port: int = DEFAULT_PORT


def own_files(measured: Measured) -> dict[str, Path]:
    """Files of this package that the engine runs, by their path in the bundle: `embedded/server.py`."""
    text = " ".join([*measured.rendered.argv, *measured.rendered.files.values()])
    side = sorted(set(_SIDE.findall(text)))  # each stands alone; the embedded server is several files
    embedded = sorted(path.name for path in Path(OWN_PLACES["embedded"]).glob("*.py")) if "{embedded}" in text else []
    return {
        f"{folder}/{name}": Path(OWN_PLACES[folder]) / name
        for folder, names in (("embedded", embedded), ("side", side))
        for name in names
    }


def run_script(measured: Measured, comments: tuple[str, ...]) -> str:
    """run.sh: the measured command line and environment, in a folder of its own."""
    rendered, study = measured.rendered, measured.study
    folders = sorted({name.partition("/")[0] for name in own_files(measured)})
    copied = [*(name for name in rendered.files if name != SCRIPT), *measured.cache, *folders]
    first = [
        'STATE=${STATE:-"${HERE}/state"}  # the engine writes here, never to what was measured',
        'mkdir -p "${STATE}"',
        *(f'cp -RLf "${{HERE}}/{name}" "${{STATE}}/"' for name in copied),
        'HERE=$(cd -- "${STATE}" && pwd)',
        *(f'{name.upper()}="${{HERE}}/{name}"' for name in folders),
    ]
    values: dict[str, str | None] = {"host": study.engine.host, "port": str(study.engine.port or DEFAULT_PORT)}
    python = study.engine.python
    if study.engine.runtime == "local" and python is not None:  # a path is from where the sweep was started
        values["python"] = str(Path(python).absolute()) if "/" in python else python
    return start_script(rendered, values | _models_here(measured), _wanted(measured), comments, first=first)


def container(measured: Measured) -> Container:
    """The container that runs run.sh."""
    engine, draft = measured.study.engine.name, _draft(measured)
    image, is_measured = _image(measured, engine)
    model = f"{MODEL_DIR}/model.gguf" if engine == "openvino" else MODEL_DIR
    env = {"SERVE_HOST": "0.0.0.0", "SERVE_PORT": str(DEFAULT_PORT), "STATE": STATE_DIR, "MODEL": model}  # noqa: S104
    if draft is not None:
        env["DRAFT_MODEL"] = DRAFT_DIR
    if engine != "trtllm":
        env["PYTHON"] = "python3"
    return Container(
        image=image,
        is_measured_image=is_measured,
        command=("bash", f"{BUNDLE_DIR}/{RUN}"),
        keeps_entrypoint=engine in KEEPS_ENTRYPOINT,
        env=env,
        model=model,
        has_draft=draft is not None,
        num_gpus=measured.num_gpus,
    )


def resource_name(name: str, suffix: str = "") -> str:
    """A bundle's name as Compose and Kubernetes take it: lower case, digits and hyphens, a letter first, 63 at most."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    own = plain if plain[:1].isalpha() else f"tpw-{plain}"
    return own[:55].rstrip("-") + (f"-{suffix}" if suffix else "")


def _image(measured: Measured, engine: str) -> tuple[str, bool]:
    """The image that was measured; else the one published for the version, or a name for the operator to fill in."""
    found = measured.meta.get("image") or measured.study.engine.image
    if found is not None:
        return str(found), True
    version = (measured.study.engine.version or "").partition("+")[0]
    named = IMAGES.get(engine) if version else None
    return (named or f"set-me/{engine}:{{}}").format(version or "version"), False


def _models_here(measured: Measured) -> dict[str, str | None]:
    """Where the models lie, if this is the machine that measured; else they are asked for."""
    if not measured.meta:
        return {}
    try:
        return dict(find_engine(measured.study).places(measured.config, measured.study))
    except (ConfigError, EngineError):
        return {}


def _wanted(measured: Measured) -> dict[str, str]:
    study = measured.study
    checkpoint = study.model.checkpoints[measured.config.precision.weights]
    revision = measured.meta.get("model", {}).get("revision") or checkpoint.revision
    at = f" --revision {revision}" if revision else ""
    how = f"set it to the folder of {checkpoint.repo}, which `hf download {checkpoint.repo}{at}` prints"
    if study.weights == "random":
        how = f"set it to the model of the measured start, which is in {study.engines_dir}/models (random weights)"
    draft = _draft(measured)
    return {"model": how} | (
        {} if draft is None else {"draft_model": f"set it to the folder of {draft}, which `hf download {draft}` prints"}
    )


def _draft(measured: Measured) -> str | None:
    return draft_model(measured.config, measured.study) if measured.study.engine.name == "trtllm" else None
