"""The choice of kernels that an engine's autotuner keeps in the engine's folder, and that a later start takes over.

TensorRT-LLM reads the file at its start and writes it when it has tuned (`TLLM_AUTOTUNER_CACHE_PATH`,
_torch/autotuner.py). Each start keeps a copy, for a later one may add to the file: what was measured ran with the copy.
"""

import hashlib
import shutil
from pathlib import Path

from pipeline.engine.protocol import Rendered

NAME = "autotuner_cache"
"""What the name of each of its files begins with; a release may add the rank."""


def keeps_cache(rendered: Rendered) -> bool:
    """Whether the engine is told to keep one in its folder."""
    return any(f"{{engine_dir}}/{NAME}" in value for value in rendered.env.values())


def cache_files(folder: Path) -> dict[str, Path]:
    """The cache's files in an engine's folder, or in that of one of its starts, by name.

    Raises:
        OSError: If the folder cannot be read.
    """
    return {path.name: path for path in sorted(folder.glob(f"{NAME}*")) if path.is_file()}


def keep_cache(engine_dir: Path, start_dir: Path) -> dict[str, str]:
    """Copy the cache into a start's folder as it is now; returns the SHA-256 of each file.

    Raises:
        OSError: If it cannot be copied.
    """
    return {name: sha256(Path(shutil.copy2(path, start_dir / name))) for name, path in cache_files(engine_dir).items()}


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: If it cannot be read.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()
