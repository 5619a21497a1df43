"""Makes a folder that passes for an environment with TensorRT-LLM installed, and one that passes for a checkpoint."""

import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.engine.trtllm.stand_in.behaviour import Behaviour

REPO = Path(__file__).parents[4]

SERVE = """#!/bin/sh
exec '{python}' -c 'from tests.engine.trtllm.stand_in.serve import main; main()' "$@"
"""
"""Not a script of that interpreter, whose path may be too long for the first line, or hold blanks."""

LLM_ARGS = """from importlib.metadata import version
from tests.engine.trtllm.stand_in.behaviour import read_behaviour
from tests.engine.trtllm.stand_in.manifest import torch_llm_args
TorchLlmArgs = torch_llm_args(version("tensorrt_llm"), read_behaviour().absent_keys)
"""


def stand_in_environment(folder: Path, version: str = "1.3.0rc29", behaviour: Behaviour | None = None) -> Path:
    """Make the environment.

    Args:
        folder: Where; may exist.
        version: What it says TensorRT-LLM's version is.
        behaviour: What its servers do; may be written again later (`Behaviour.write`).

    Returns:
        Its interpreter, for engine.python; `trtllm-serve` lies beside it.
    """
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    package = packages / "tensorrt_llm" / "llmapi"
    info = packages / f"tensorrt_llm-{version}.dist-info"
    for made in (python.parent, package, info):
        made.mkdir(parents=True, exist_ok=True)
    base = Path(getattr(sys, "_base_executable", sys.executable))
    if not python.is_symlink():
        python.symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (packages / "stand_in.pth").write_text(f"{REPO}\n{sysconfig.get_path('purelib')}\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {version}\n")
    for module, text in {
        package.parent / "__init__.py": f"__version__ = {version!r}\n", package / "__init__.py": "",
        package / "llm_args.py": LLM_ARGS,
    }.items():  # fmt: skip
        module.write_text(text)
    serve = folder / "bin" / "trtllm-serve"
    serve.write_text(SERVE.format(python=python))
    serve.chmod(0o755)
    (behaviour or Behaviour()).write(folder)
    return python


def checkpoint(folder: Path, hf_config: dict[str, Any]) -> Path:
    """A checkpoint's folder with a model's config, a tokenizer and weights of no size."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder
