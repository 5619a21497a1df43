"""Published names of models, and which of conf/model they are."""

import pytest

from pipeline.compose import groups
from pipeline.importers.model_name import checkpoint, conf_name


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("Qwen/Qwen3-235B-A22B-Thinking-2507-FP8", "qwen3-235b-a22b"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3-30b-a3b"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout"),
        ("meta-llama/Llama-3.1-405B-Instruct", "llama-3.1-405b"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-r1"),
        ("google/gemma-3-12b-it", "gemma-3-12b"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
    ],
)
def test_published_names_lead_to_our_facts(published: str, ours: str) -> None:
    assert conf_name(published) == ours
    assert ours in groups()["model"]


def test_a_listed_checkpoint_says_its_weights_and_another_release_does_not() -> None:
    assert checkpoint("nvidia/Llama-3.3-70B-Instruct-FP8") == ("llama-3.3-70b", "fp8")
    assert checkpoint("/data/models/gpt-oss-120b/") == ("gpt-oss-120b", None)
    assert checkpoint("tiny") == checkpoint("") == (None, None)
