"""What of TensorRT-LLM depends on its version, but for the arguments themselves (data/llm_args.tsv).

Where the release that a change landed in was not to be found, the version below is the first one known to have it, and
what is rendered for older ones is the form that both sides accept. Known: the energy endpoint came with 1.3.0rc9 (its
release notes, PR 11855); usage telemetry merged after that (PR 12384), was present by 1.3.0rc21, and is switched off by
an environment variable that older releases ignore. Not found: the releases of PR 12341 (MTP's draft length), PR 9104
(`--config`; after 1.2.0rc3, in 1.2.0) and PR 14812. Until that last one, in June 2026, a setting in the file beat the
same one on the command line; since then the command line wins. The file alone carries settings here.
"""

import re
from dataclasses import dataclass

from pipeline.errors import ConfigError

LISTED = ("1.3.0rc21", "1.3.0rc24", "1.3.0rc27", "1.3.0rc29")
"""Releases whose own list of arguments is in data/llm_args.tsv, oldest first."""

NEWEST = LISTED[-1]

OLDEST = "1.0.0"
"""Before it, `trtllm-serve` ran TensorRT engines unless told otherwise. Source: docs/source/release-notes.md."""

CONFIG_OPTION_SINCE = "1.2.0"
"""Older releases know the file's option only as --extra_llm_api_options; newer ones know both (PR 9104)."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:rc(\d+))?(?:\.post(\d+))?(?:\.dev\d+)?(?:\+.*)?")
_FINAL = 1 << 20
"""Stands for no rc: a release comes after all of its candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """A key that had another name before a version; `decoding_type` limits it to one way to speculate."""

    key: str
    old: str
    until: str
    decoding_type: str | None = None


RENAMES = (
    Rename(
        key="speculative_config.max_draft_len",
        old="speculative_config.num_nextn_predict_layers",
        until="1.3.0rc14",
        decoding_type="MTP",
    ),
    Rename(
        key="speculative_config.speculative_model",
        old="speculative_config.speculative_model_dir",
        until="1.3.0rc21",
    ),
    Rename(
        key="kv_cache_config.block_reuse_config.policy",
        old="kv_cache_config.block_reuse_policy",
        until="1.3.0rc24",
    ),
    Rename(
        key="kv_cache_config.mamba_state_config.periodic_snapshot_interval",
        old="kv_cache_config.mamba_state_cache_interval",
        until="1.3.0rc24",
    ),
)
"""The first two old names are still taken, with a warning, by releases that have the new one (llmapi/llm_args.py: a
validator of MTPDecodingConfig, an alias of DecodingBaseConfig); NVIDIA's recipes for 1.3.0rc14 write MTP's new one. The
last two are told apart by the arguments of 1.3.0rc21 and 1.3.0rc24."""


def order(version: str) -> tuple[int, ...]:
    """Sort key of a version.

    Raises:
        ConfigError: If it is none.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ConfigError(f"engine.version={version}: is no version of TensorRT-LLM; write e.g. {NEWEST}")
    major, minor, patch, candidate, post = match.groups()
    return int(major), int(minor), int(patch or 0), int(candidate or _FINAL), int(post or 0)


def is_before(version: str, other: str) -> bool:
    """Whether a version came before another."""
    return order(version) < order(other)


def is_tested(version: str) -> bool:
    """Whether the arguments were checked against this very release."""
    return version.removeprefix("v").partition("+")[0] in LISTED


def check_supported(version: str) -> None:
    """Check that a version is not too old.

    Raises:
        ConfigError: If it is.
    """
    if is_before(version, OLDEST):
        raise ConfigError(
            f"engine.version={version}: TensorRT-LLM before {OLDEST} serves through another backend; use {OLDEST} or "
            f"newer, such as the container of {NEWEST}"
        )


def name_in(version: str, key: str, decoding_type: object = None) -> str:
    """What a key is called in a version.

    Args:
        version: TensorRT-LLM's.
        key: Dotted path, as the newest release has it.
        decoding_type: How the config speculates, if it does.
    """
    for rename in RENAMES:
        if rename.key == key and rename.decoding_type in {None, decoding_type} and is_before(version, rename.until):
            return rename.old
    return key
