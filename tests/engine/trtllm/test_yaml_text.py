import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.trtllm.yaml_text import yaml_text

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=8),
    st.sampled_from(["", "no", "1", "1e3", "null", "a: b", "- x", "{model}", "it's", '"', "0x1", "12:30"]),
)  # fmt: skip
KEYS = st.from_regex(r"[a-z]{4,9}_[a-z0-9]{1,5}", fullmatch=True)
TREES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4))
def test_yaml_reads_what_was_written(args: dict[str, object]) -> None:
    assert yaml.safe_load(yaml_text(args)) == args


def test_it_is_laid_out_for_reading() -> None:
    args = {"max_batch_size": 8, "moe_config": {"backend": "TRTLLM"}, "sizes": [1, 2], "graphs": None, "empty": {}}
    assert yaml_text(args) == (
        'max_batch_size: 8\nmoe_config:\n  backend: "TRTLLM"\nsizes: [1, 2]\ngraphs: null\nempty: {}\n'
    )
