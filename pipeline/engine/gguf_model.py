"""Where the embedded engine finds its model: a file of the user's, or one with random weights, written once."""

from pathlib import Path

from pipeline.engine.runtime.ask import ask
from pipeline.engine.runtime.protocol import Mount
from pipeline.engine_config import Scalar, content_hash
from pipeline.errors import ConfigError, EngineError
from pipeline.study import Study

TINY_GGUF = Path(__file__).parent / "embedded" / "tiny_gguf.py"
WRITE_TIMEOUT_S = 600.0
WAYS_OUT = "set model.path to a .gguf file or an OpenVINO model folder, or set weights=random"


def prepare_model(study: Study) -> Path:
    """The model to serve; a random one is written once per architecture, seed and generator.

    Raises:
        ConfigError: If weights are missing; names the ways out.
        EngineError: If a random model cannot be written.
    """
    if study.weights != "random":
        return _weights_file(study).parent if _is_folder(study) else _weights_file(study)
    recipe = describe_model(study)
    key = content_hash([recipe, TINY_GGUF.read_text(encoding="utf-8")])
    path = (
        Path(study.engines_dir).absolute()
        / "models"
        / f"{study.model.name}-seed{study.weights_seed}-{key}"
        / "model.gguf"
    )
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ("python", str(TINY_GGUF), str(path), *_options(recipe))
    mounts = (Mount(path=TINY_GGUF), Mount(path=path.parent, is_writable=True))
    problem = f"model={study.model.name}: its random weights were not written"
    try:
        done = ask(study.engine, command, timeout_s=WRITE_TIMEOUT_S, mounts=mounts)
    except EngineError as error:
        raise EngineError(f"{problem}: {error}") from error
    if done.returncode != 0:
        lines = tuple(done.stderr.strip().splitlines())
        raise EngineError(f"{problem}: {lines[-1] if lines else f'exit status {done.returncode}'}", lines)
    return path


def describe_model(study: Study) -> dict[str, Scalar]:
    """What the model is, wherever it lies: the arguments of tiny_gguf.py, or name and size of the user's file.

    Raises:
        ConfigError: If weights are missing, or random ones of this architecture cannot be written.
    """
    if study.weights != "random":
        file = _weights_file(study)
        return {"file": file.name, "bytes": file.stat().st_size}
    _check_writable(study)
    model = study.model
    return {
        "layers": model.num_layers,
        "hidden": model.hidden_size,
        "heads": model.num_heads,
        "kv-heads": model.num_kv_heads,
        "intermediate": model.intermediate_size,
        "vocab": model.vocab_size,
        "context": model.max_context_tokens,
        "tie-embeddings": model.tie_embeddings,
        "seed": study.weights_seed,
    }


def _is_folder(study: Study) -> bool:
    return study.model.path is not None and Path(study.model.path).is_dir()


def _weights_file(study: Study) -> Path:
    """The GGUF file, or the weights in an OpenVINO model folder.

    Raises:
        ConfigError: If there is none.
    """
    if study.weights != "checkpoint":
        raise ConfigError(f"weights={study.weights}: a served engine needs weights; {WAYS_OUT}")
    if study.model.path is None:
        raise ConfigError(f"weights=checkpoint: model.path of {study.model.name} is null; {WAYS_OUT}")
    path = Path(study.model.path).absolute()
    file = path / "openvino_model.bin" if path.is_dir() else path
    if not file.is_file() or file.suffix not in {".gguf", ".bin"}:
        raise ConfigError(f"model.path={path}: neither a .gguf file nor a folder with openvino_model.bin; {WAYS_OUT}")
    return file


def _check_writable(study: Study) -> None:
    """Refuse architectures that tiny_gguf.py does not write.

    Raises:
        ConfigError: If the model is no dense Llama.
    """
    model = study.model
    if model.num_experts or model.mla_kv_dim is not None or model.sliding_window_tokens is not None:
        raise ConfigError(
            f"weights=random: engine=openvino draws dense Llama models only, and {model.name} has experts, latent "
            "attention or a sliding window; use model=tiny-llama, or model.path with weights=checkpoint"
        )
    if model.num_heads * model.head_dim != model.hidden_size:
        raise ConfigError(
            f"weights=random: model.num_heads {model.num_heads} x model.head_dim {model.head_dim} must be "
            f"model.hidden_size {model.hidden_size}, for OpenVINO derives the head size from the other two"
        )


def _options(recipe: dict[str, Scalar]) -> list[str]:
    """Command line of tiny_gguf.py; a flag stands alone."""
    options: list[str] = []
    for name, value in recipe.items():
        if value is not False:
            options += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return options
