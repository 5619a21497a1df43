"""What the generator can be set to: the scheduler's settings checked by name and value, and the model's context."""

import json
from pathlib import Path
from typing import Any

import gguf
import openvino_genai


class SettingsError(Exception):
    """The settings or the model cannot be used; the message is one line for the user."""


def scheduler_config(settings: dict[str, Any]) -> Any:
    """Build the scheduler's settings.

    Raises:
        SettingsError: If a name or a value is not one the scheduler takes, or two do not go together.
    """
    config = openvino_genai.SchedulerConfig()
    for name, value in settings.items():
        if not hasattr(config, name):
            known = ", ".join(n for n in dir(config) if not n.startswith("_"))
            raise SettingsError(f"unknown scheduler setting {name}; known: {known}")
        try:
            setattr(config, name, value)
        except TypeError as error:
            raise SettingsError(f"scheduler setting {name} cannot be {value!r}") from error
    if min(config.max_num_seqs, config.max_num_batched_tokens) < 1:
        raise SettingsError("max_num_seqs and max_num_batched_tokens must be at least 1")
    if not config.dynamic_split_fuse and config.max_num_seqs > config.max_num_batched_tokens:
        raise SettingsError(
            f"without dynamic_split_fuse, max_num_seqs {config.max_num_seqs} "
            f"must not exceed max_num_batched_tokens {config.max_num_batched_tokens}"
        )
    return config


def context_length_tokens(model: Path) -> int:
    """Longest context of a GGUF file or an OpenVINO folder.

    Raises:
        SettingsError: If the model is not there or does not say.
    """
    if model.is_dir():
        config_file = model / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
        length = config.get("max_position_embeddings")
    elif model.is_file():
        try:
            reader = gguf.GGUFReader(model)
        except ValueError as error:
            raise SettingsError(f"{model} is not a GGUF file: {error}") from error
        architecture = reader.get_field("general.architecture")
        field_ = reader.get_field(f"{architecture.contents()}.context_length") if architecture else None
        length = field_.contents() if field_ else None
    else:
        raise SettingsError(f"no model at {model}")
    if not isinstance(length, int):
        raise SettingsError(f"{model} does not say its longest context (GGUF context_length, max_position_embeddings)")
    return length


def last_line(error: Exception) -> str:
    """The last line of an error that says anything; OpenVINO puts file names above the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
