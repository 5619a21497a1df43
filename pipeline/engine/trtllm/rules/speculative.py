"""Speculative decoding: what each way to draft needs, and what excludes what."""

from pipeline.engine.trtllm.llm_args import NEEDS_DRAFT
from pipeline.engine.trtllm.rules.rule import Rule, any_knob, knob, number, shown
from pipeline.engine_config import EngineConfig
from pipeline.study import Study

GROUP = "speculative_config."

TYPE = GROUP + "decoding_type"

NEEDS_LENGTH = frozenset({"Eagle3", "Eagle", "Draft_Target", "PARD", "DFlash", "DSpark", "NGram", "SA"})
"""Types that cannot take the length of the draft from the checkpoint, as MTP can."""

NOT_SERVED = {
    "SaveState": "writes hidden states to files instead of answering fast",
    "User_Provided": "takes a Python object, which no file can hold",
}

RETRIEVAL = frozenset({"NGram", "SA", "AUTO", "SaveState", "User_Provided"})
"""Types whose drafts have no probabilities to accept or reject by."""


def _type(config: EngineConfig) -> str | None:
    value = knob(config, TYPE)
    return value if isinstance(value, str) else None


def _schedule(config: EngineConfig) -> dict[int, float]:
    """draft_len_schedule: largest batch -> length of the drafts."""
    prefix = GROUP + "draft_len_schedule."
    pairs = {name.removeprefix(prefix): number(config, name) for name in config.knobs if name.startswith(prefix)}
    return {int(size): length for size, length in sorted(pairs.items()) if size.isdecimal() and length is not None}


def _untyped(config: EngineConfig, _: Study) -> str | None:
    name = any_knob(config, GROUP)
    if name is not None and _type(config) is None:
        return f"{shown(config, name)}: of which kind of speculation? set {TYPE} too, or leave it out"
    return None


def _random_weights(config: EngineConfig, study: Study) -> str | None:
    if _type(config) is not None and study.weights == "random":
        return (
            f"{shown(config, TYPE)}: with weights=random no draft is ever right, so its speed says nothing; "
            "set weights=checkpoint, or leave it out"
        )
    return None


def _served(config: EngineConfig, _: Study) -> str | None:
    kind = _type(config)
    return f"{shown(config, TYPE)}: {NOT_SERVED[kind]}; use Eagle3, MTP or NGram" if kind in NOT_SERVED else None


def _length(config: EngineConfig, _: Study) -> str | None:
    name = GROUP + "max_draft_len"
    kind, length = _type(config), number(config, name)
    if kind in NEEDS_LENGTH and not (length and length > 0):
        return f"{shown(config, TYPE)}: drafts how many tokens? set {name} from 1 on"
    if kind == "MTP" and length is not None and length <= 0:
        return f"{shown(config, name)}: MTP drafts at least one token; set it from 1 on, or leave it out"
    return None


def _draft_model(config: EngineConfig, study: Study) -> str | None:
    kind = _type(config)
    if kind not in NEEDS_DRAFT or knob(config, GROUP + "speculative_model") is not None:
        return None
    if kind in study.model.draft_models:
        return None
    known = ", ".join(study.model.draft_models) or "none"
    return (
        f"{shown(config, TYPE)}: needs a draft of {study.model.name}, and its model file names {known}; "
        f"set {GROUP}speculative_model to a repository or folder"
    )


def _mtp(config: EngineConfig, study: Study) -> str | None:
    if _type(config) != "MTP":
        return None
    if study.model.num_sliding_layers > 0:
        return f"{shown(config, TYPE)}: does not go with sliding-window attention; use Eagle3 or NGram"
    if study.model.mtp_layers == 0:
        return f"{shown(config, TYPE)}: {study.model.name} has no multi-token prediction layer; use Eagle3 or NGram"
    return None


def _cutoffs(config: EngineConfig, _: Study) -> str | None:
    name, schedule = GROUP + "max_concurrency", _schedule(config)
    if not schedule:
        return None
    if knob(config, name) is not None:
        return f"{shown(config, name)}: draft_len_schedule already says when to stop; leave one of the two out"
    longest = number(config, GROUP + "max_draft_len")
    first = schedule[min(schedule)]
    if min(schedule) < 1 or (longest is not None and (first != longest or max(schedule.values()) > longest)):
        return (
            f"engine.knobs.{GROUP}draft_len_schedule={schedule}: batches count from 1 on, and the smallest has the "
            f"longest draft, max_draft_len={longest}; set them alike"
        )
    return None


def _padding(config: EngineConfig, _: Study) -> str | None:
    name = "cuda_graph_config.enable_padding"
    has_schedule = bool(_schedule(config)) or knob(config, GROUP + "max_concurrency") is not None
    if knob(config, name) is False and _type(config) is not None and has_schedule:
        return f"{shown(config, name)}: a schedule of draft lengths turns padding on; set it to true"
    return None


def _rejection(config: EngineConfig, _: Study) -> str | None:
    name = GROUP + "use_rejection_sampling"
    if knob(config, name) is not True:
        return None
    top_k = number(config, GROUP + "dynamic_tree_max_topK") or 0
    obstacles = {
        f"decoding_type={_type(config)}": _type(config) in RETRIEVAL,
        "sa_config": any_knob(config, GROUP + "sa_config") is not None,
        f"dynamic_tree_max_topK={top_k:g} above 32": knob(config, GROUP + "use_dynamic_tree") is True and top_k > 32,
        "relaxed acceptance": knob(config, GROUP + "use_relaxed_acceptance_for_thinking") is True,
        f"parallelism.cp={config.parallelism.cp}": config.parallelism.cp > 1
        and _type(config) not in {"Eagle3", "Eagle"},
    }
    obstacle = next((what for what, is_there in obstacles.items() if is_there), None)
    return f"{shown(config, name)}: does not go with {obstacle}; leave one of the two out" if obstacle else None


def _tree(config: EngineConfig, _: Study) -> str | None:
    if knob(config, GROUP + "use_dynamic_tree") is not True:
        return None
    top_k = number(config, GROUP + "dynamic_tree_max_topK")
    length, total = number(config, GROUP + "max_draft_len"), number(config, GROUP + "max_total_draft_tokens")
    if not (top_k and top_k > 0 and length):
        return (
            f"{shown(config, GROUP + 'use_dynamic_tree')}: how wide and how deep? set {GROUP}dynamic_tree_max_topK and "
            f"{GROUP}max_draft_len"
        )
    if total is not None and not length <= total <= top_k * length:
        return (
            f"{shown(config, GROUP + 'max_total_draft_tokens')}: a tree {length:g} deep and {top_k:g} wide has "
            f"{length:g} to {top_k * length:g} tokens; choose one of these, or leave it out"
        )
    return None


def _automaton(config: EngineConfig, _: Study) -> str | None:
    name = GROUP + "max_matching_ngram_size"
    size, pool = number(config, name), number(config, GROUP + "global_pool_size")
    is_pooled = knob(config, GROUP + "enable_global_pool") is True
    if _type(config) == "NGram" and size is not None and size < 1:
        return f"{shown(config, name)}: matches at least one token; set it from 1 on"
    if _type(config) != "SA":
        return None
    if size is not None and (size == 0 or (is_pooled and size != -1 and not 1 <= size <= 64)):
        return f"{shown(config, name)}: takes -1 (longest match) or, with a global pool, 1 to 64; set one of these"
    if pool is not None and not (is_pooled and pool >= (config.batching.max_batch_size or 2048)):
        return (
            f"{shown(config, GROUP + 'global_pool_size')}: needs enable_global_pool=true and room for max_batch_size "
            "requests; set both, or leave it out"
        )
    return None


def _overlap(config: EngineConfig, _: Study) -> str | None:
    if _type(config) == "NGram" and knob(config, "disable_overlap_scheduler") is not True:
        return (
            f"{shown(config, TYPE)}: turns the overlap scheduler off; set disable_overlap_scheduler=true to say so, "
            "or compare with SA, which keeps it"
        )
    return None


def _old_eagle(config: EngineConfig, _: Study) -> str | None:
    if _type(config) == "Eagle":
        return f"{shown(config, TYPE)}: is taken as Eagle3, and drafts of EAGLE 1 and 2 do not fit; use Eagle3"
    for name in (GROUP + "eagle3_one_model", GROUP + "mtp_eagle_one_model"):
        if knob(config, name) is False:
            return f"{shown(config, name)}: newer releases ignore it; leave it out"
    return None


RULES = (
    Rule(name="speculation_untyped", kind="refuses", check=_untyped,
         source="llmapi/llm_args.py, SpeculativeConfig: discriminator decoding_type, 1.0 to newest"),
    Rule(name="speculation_random_weights", kind="refuses", check=_random_weights,
         source="ours: the share of accepted drafts is a property of the weights"),
    Rule(name="speculation_not_served", kind="refuses", check=_served,
         source="llmapi/llm_args.py, SaveHiddenStatesDecodingConfig and UserProvidedDecodingConfig, newest"),
    Rule(name="speculation_length", kind="refuses", check=_length,
         source="llmapi/llm_args.py, validators of each type and validate_speculative_config, newest"),
    Rule(name="speculation_draft_model", kind="refuses", check=_draft_model,
         source="llmapi/llm_args.py, EagleDecodingConfig and DraftTargetDecodingConfig, newest"),
    Rule(name="mtp", kind="refuses", check=_mtp,
         source="_torch/pyexecutor/_util.py, validate_feature_combination: mtp and sliding windows, 1.2"),
    Rule(name="speculation_cutoffs", kind="refuses", check=_cutoffs,
         source="llmapi/llm_args.py, DecodingBaseConfig, draft_len_schedule and max_concurrency, newest"),
    Rule(name="speculation_padding", kind="warns", check=_padding,
         source="llmapi/llm_args.py, validate_speculative_config, newest"),
    Rule(name="rejection_sampling", kind="refuses", check=_rejection,
         source="llmapi/llm_args.py, validate_speculative_config, newest"),
    Rule(name="draft_tree", kind="refuses", check=_tree,
         source="llmapi/llm_args.py, EagleDecodingConfig and MTPDecodingConfig, newest"),
    Rule(name="matching_drafts", kind="refuses", check=_automaton,
         source="llmapi/llm_args.py, NGramDecodingConfig and SADecodingConfig, newest"),
    Rule(name="ngram_overlap", kind="warns", check=_overlap,
         source="_torch/speculative/interface.py, support_overlap_scheduler; py_executor_creator.py, 1.0 to newest"),
    Rule(name="old_eagle", kind="warns", check=_old_eagle,
         source="llmapi/llm_args.py, validate_speculative_config and validate_eagle_config, newest"),
)  # fmt: skip
