"""Where an engine finds its model: a downloaded checkpoint, or a folder with config and tokenizer but no weights."""

import json
import os
from pathlib import Path
from typing import Any

from pipeline.engine.folder import write_whole
from pipeline.engine.process import writable
from pipeline.errors import ConfigError
from pipeline.study import Checkpoint, Model, Study

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
"""Any of these holds a vocabulary; tokenizer_config.json alone is none."""


def checkpoint_for(model: Model, weights: str) -> Checkpoint:
    """The checkpoint that holds a model's weights in a format.

    fp8 without a checkpoint of its own is the bf16 one, for an engine that quantises as it loads.

    Raises:
        ConfigError: If there is none.
    """
    source = "bf16" if weights == "fp8" and "fp8" not in model.checkpoints else weights
    if source not in model.checkpoints:
        allowed = ", ".join(model.checkpoints) or "none"
        raise ConfigError(f"precision.weights={weights}: no checkpoint of {model.name} has it; allowed: {allowed}")
    return model.checkpoints[source]


def checkpoint_dir(study: Study, weights: str, *, with_tokenizer: bool = False) -> Path:
    """Folder of the checkpoint in a format: `model.path`, or its snapshot in the Hugging Face cache.

    Args:
        study: Names the model.
        weights: The format.
        with_tokenizer: Whether the engine needs a tokenizer in it.

    Raises:
        ConfigError: If there is none, or files are missing; names the ways out.
    """
    if study.model.path is not None:
        folder = Path(study.model.path).absolute()
        problem = _why_incomplete(folder, with_tokenizer=with_tokenizer)
        if problem is not None:
            raise ConfigError(f"model.path={study.model.path}: {problem}; give a downloaded checkpoint's folder")
        found, wanted = _format(folder), checkpoint_for(study.model, weights).format
        if found != wanted:
            raise ConfigError(
                f"precision.weights={weights}: model.path={study.model.path} holds {found} weights, not {wanted}; "
                "set precision.weights to what it holds, or give another folder"
            )
        return folder
    checkpoint = checkpoint_for(study.model, weights)
    cache = hub_cache()
    snapshot = _snapshot(cache, checkpoint.repo, checkpoint.revision)
    problem = "not there" if snapshot is None else _why_incomplete(snapshot, with_tokenizer=with_tokenizer)
    if snapshot is None or problem is not None:
        revision = f" --revision {checkpoint.revision}" if checkpoint.revision else ""
        raise ConfigError(
            f"weights=checkpoint: {checkpoint.repo} in the Hugging Face cache {cache}: {problem}; run "
            f"`hf download {checkpoint.repo}{revision}`, or set model.path=DIR, or weights=random (exercises the loop; "
            "such rows say so and are never chosen for production)"
        )
    return snapshot


def draft_dir(draft: str) -> Path:
    """Folder of a model that drafts for another: that folder, or a repository's snapshot in the Hugging Face cache.

    Raises:
        ConfigError: If it is not there, or files are missing; names the ways out.
    """
    given, cache = Path(draft).expanduser().absolute(), hub_cache()
    folder = given if given.is_dir() else _snapshot(cache, draft, None)
    problem = f"no such folder, nor in the Hugging Face cache {cache}" if folder is None else _why_incomplete(folder)
    if folder is None or problem is not None:
        raise ConfigError(f"draft model {draft}: {problem}; run `hf download REPOSITORY`, or give a downloaded folder")
    return folder


def hub_cache() -> Path:
    """The Hugging Face cache: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(home).expanduser() / "hub"


def _snapshot(cache: Path, repo: str, revision: str | None) -> Path | None:
    """Folder of one revision (a commit, branch or tag; main if None), as huggingface_hub lays them out."""
    repo_dir = cache / f"models--{repo.replace('/', '--')}"
    ref = repo_dir / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = repo_dir / "snapshots" / commit if commit else None
    return folder if folder is not None and folder.is_dir() else None


def _why_incomplete(folder: Path, *, with_tokenizer: bool = False) -> str | None:
    """What a checkpoint's folder lacks, or None."""
    if not folder.is_dir():
        return "no such folder"
    if not (folder / "config.json").is_file():
        return "no config.json"
    if with_tokenizer and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"no tokenizer (none of {', '.join(TOKENIZER_FILES)})"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = sorted(set(_read_json(index).get("weight_map", {}).values()))
        missing = [name for name in wanted if not (folder / name).is_file()]
        return f"{len(missing)} of {len(wanted)} weight files are missing, e.g. {missing[0]}" if missing else None
    return None if any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES) else "no weight files"


def _format(folder: Path) -> str:
    """Number format of a checkpoint's weights by its own config, in the words of `Checkpoint.format`.

    Source: `quantization_config` of Hugging Face configs; `hf_quant_config.json` of NVIDIA ModelOpt.
    """
    quantization = _object(_read_json(folder / "config.json").get("quantization_config"))
    modelopt = folder / "hf_quant_config.json"
    if modelopt.is_file():
        quantization |= _object(_read_json(modelopt).get("quantization"))
    method = str(quantization.get("quant_algo") or quantization.get("quant_method") or "bf16").lower()
    is_blocked = method == "fp8" and "weight_block_size" in quantization
    return "fp8_block" if is_blocked else method


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint.

    Raises:
        ConfigError: If it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); download the checkpoint again") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds no JSON object; download the checkpoint again")
    return data


def random_model_dir(study: Study) -> Path:
    """Write a model folder without weights, for an engine that draws them: config and a plain tokenizer.

    Safe to call at any time: files that are right are left alone, others are replaced whole.

    Raises:
        ConfigError: If the model has no `hf_config`.
    """
    model = study.model
    folder = Path(study.engines_dir).absolute() / "models" / f"{model.name}-random"
    with writable(folder):
        for name, content in random_model_files(model).items():
            write_whole(folder / name, json.dumps(content, separators=(",", ":"), sort_keys=True))
    return folder


def random_model_files(model: Model) -> dict[str, dict[str, Any]]:
    """Names and contents of the files that stand for a model without weights.

    The tokenizer has one word per token, `t0 t1 ...`: prompts come as token ids, and every token decodes to text.

    Raises:
        ConfigError: If the model has no `hf_config`.
    """
    if model.hf_config is None:
        raise ConfigError(
            f"weights=random: model.hf_config of {model.name} is null, so its shapes are unknown; put the model's "
            "config.json there, or set weights=checkpoint"
        )
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {f"t{token}": token for token in range(model.vocab_size)},
            "unk_token": "t0",
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.max_context_tokens,
        "clean_up_tokenization_spaces": False,
        "unk_token": "t0",
    }
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": settings,
        "generation_config.json": {"do_sample": False},
        "config.json": model.hf_config,
    }
