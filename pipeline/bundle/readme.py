"""README.md of a bundle: what an operator must know, from decision.json alone."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

NOT_MEASURED = (
    "The service, proxy, container image or cluster around the engine, unless this page says it was measured in it.",
    "CPU, memory, network, fans, power supplies and cooling, where the boundary is the GPU boards.",
    "Other prompts, lengths, loads, GPUs, drivers or power limits than those above.",
)


def readme(decision: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    """The page.

    Args:
        decision: decision.json.
        left_out: File that this bundle has not -> why.
    """
    facts = decision["bundle"]
    sections = [
        f"# {facts['name']}",
        *_label(facts),
        _what(facts),
        "## The measured number",
        _number(facts),
        *_choice(decision),
        "## Launch",
        _launch(facts, left_out),
        "## Verify",
        _verify(facts["folder"]),
        "## Autotuner's cache",
        _cache(facts),
        "## Quality",
        _quality(facts["quality"], facts["quality_verdict"]),
        "## Not measured",
        "\n".join(f"- {line}" for line in NOT_MEASURED),
    ]
    return "\n\n".join(sections) + "\n"


def _label(facts: Mapping[str, Any]) -> list[str]:
    labels = []
    if facts["weights"] != "checkpoint":
        labels.append(
            f"**weights={facts['weights']}** ({facts['weights_init']}): the measured number exercises the loop and is "
            "no claim about the trained model. Do not serve users by it."
        )
    if facts["evidence"] != "measured":
        labels.append(f"**evidence={facts['evidence']}**: the joules or the tokens are not measured as they should be.")
    return labels


def _what(facts: Mapping[str, Any]) -> str:
    model, versions = facts["model"], facts["versions"]
    place = f"{facts['num_gpus']} x {facts['gpu_name']}" if facts["num_gpus"] else facts["gpu_name"] or "a CPU"
    rows = [
        ("model", f"{model['name']}, {model['repo']}, revision {_or(model['revision'])}"),
        ("checkpoint hash", _or(model["checkpoint_hash"], "not known")),
        ("engine", f"{versions['engine']} {_or(versions['engine_version'])}, image {_or(versions['image'], 'none')}"),
        ("config", ", ".join(f"{key}={value}" for key, value in facts["config"].items())),
        ("GPUs", f"{place}, driver {_or(versions['driver_version'])}"),
        ("power limit", f"{facts['power_limit_w']:g} W over all of them" if facts["power_limit_w"] else "not known"),
        ("rendered hash", f"`{facts['rendered_hash']}`, equal to that of the measured rows"),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _number(facts: Mapping[str, Any]) -> str:
    head, load, slo = facts["headline"], facts["workload"], facts["slo"]
    interval = f"95 % interval {head['low']:.4g} to {head['high']:.4g}" if head["low"] is not None else "no interval"
    owed = [f"{key}={value:g}" for key, value in slo.items() if key not in {"name", "source"} and value is not None]
    return (
        f"**{head['output_tokens_per_joule']:.4g} output tokens per joule**, {interval} ({head['interval_of']}; "
        f"starts: {head['num_starts']}), at {head['load']}.\n\n"
        f"Evidence `{facts['evidence']}`, boundary `{facts['boundary']}`, weights `{facts['weights']}`; workload "
        f"{load['name']}, ISL/OSL {load['isl_tokens']}/{load['osl_tokens']} at lengths {load['length_ratio_min']:g} "
        f"to 1 of nominal; SLO {slo['name']}: {', '.join(owed) or 'none'}; plan {facts['plan']}, "
        f"{facts['measured_start']['started_utc'][:10]}. Rows: {', '.join(head['row_ids'])}."
    )


def _choice(decision: Mapping[str, Any]) -> list[str]:
    """What the choice rests on, and what the chooser says against it."""
    if "criterion" not in decision:
        return []
    is_firm, doubts, value = decision["is_firm"], decision["doubts"], decision["winner"]["output_tokens_per_joule"]
    said = (
        f"{'Chosen' if is_firm else '**Chosen for now**, not firmly'}, by {decision['criterion']}: {value:.4g} tok/J "
        f"at its best load, read off a smooth curve through all loads{'; mind:' if doubts else '.'}"
    )
    return ["\n".join([said, *([""] if doubts else []), *(f"- {doubt}" for doubt in doubts)])]


def _launch(facts: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    ways = {
        "run.sh": "`MODEL=DIR ./run.sh`: in an environment that has the engine. It is the measured command line; STATE "
        "names the folder that it works in (by default `state/` here)",
        "compose.yaml": "`MODEL=DIR docker compose up`: **rendered and checked, not run**; a snapshot in the Hugging "
        "Face cache is links that a container does not follow: `hf download --local-dir DIR`",
        "kubernetes.yaml": "`kubectl apply -f kubernetes.yaml`: **rendered and checked, not run**; the model is on a "
        "claim named `model`, the pod wants NVIDIA's device plugin",
        "dynamo.yaml": "`kubectl apply -f dynamo.yaml`: NVIDIA Dynamo, **rendered and checked, not run**. Dynamo's own "
        "frontend and router are no part of what was measured",
    }
    lines = [f"- {text}." for name, text in ways.items() if name in facts["files"]]
    lines += [f"- No `{name}`: {why}." for name, why in left_out.items()]
    if not facts["is_measured_image"] and "compose.yaml" in facts["files"]:
        lines.append(
            f"- It was measured without a container: the image in these files, `{facts['image']}`, is "
            f"{'for you to set' if facts['image'].startswith('set-me/') else 'the published one of that version'}, and "
            "was not measured."
        )
    return "\n".join(lines)


def _verify(folder: str) -> str:
    folder = shlex.quote(folder)
    commands = {
        "sha256sum -c SHA256SUMS": "files as they were written",
        f"tpw verify {folder}": "also the rendered hash, the rows, the manifests",
        f"tpw verify {folder} --live": "starts it again, measures this load, compares",
    }
    width = max(map(len, commands))
    return "```\n" + "".join(f"{command:{width}}  # {what}\n" for command, what in commands.items()) + "```"


def _cache(facts: Mapping[str, Any]) -> str:
    temperature, files = facts["measured_start"]["autotuner_cache"], facts["autotuner_cache"]
    if files:
        names = ", ".join(f"`{each['file']}` (SHA-256 {each['sha256'][:16]})" for each in files)
        how = {"cold": "cold: it chose its kernels itself, and left", "warm": "warm: it took over the choices in"}
        return (
            f"The measured start was {how.get(temperature, 'of unknown temperature; it left')} {names}. Each launch "
            "starts from that file, and writes to a copy."
        )
    if facts["keeps_cache"]:
        found = (
            f"The measured start was {temperature} and left none"
            if temperature
            else "That of the measured start was not kept"
        )
        return f"{found}: each launch tunes anew."
    return "This engine keeps none in its folder, so nothing is carried."


def _quality(findings: Sequence[Mapping[str, Any]] | None, verdict: str | None) -> str:
    if not findings:
        return "**No quality check was made of this config**: `tpw quality candidate=... reference=...` makes one."
    first = findings[0]
    lines = [
        f"**{verdict}**: check {first['quality_id']} of {first['started_utc'][:10]}, against `{first['reference']}` "
        f"({_or(first['reference_engine'])}), weights {_or(first['weights'])}:",
        "",
        "| check | metric | value | 95 % interval | threshold | verdict |\n|---|---|---:|---|---:|---|",
    ]
    for each in findings:
        interval = f"{each['low']:.4g} to {each['high']:.4g}" if each["low"] is not None else "-"
        value, bound = (f"{each[key]:.4g}" if each[key] is not None else "-" for key in ("value", "threshold"))
        verdict = each["verdict"] or "-"
        lines.append(f"| {each['check']} | {each['metric']} | {value} | {interval} | {bound} | {verdict} |")
    notes = list(dict.fromkeys(note for each in findings for note in each["notes"]))
    return "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes)])


def _or(value: Any, otherwise: str = "unknown") -> str:
    return otherwise if value is None else str(value)
