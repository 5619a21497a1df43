import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.trtllm.versions import (
    LISTED,
    NEWEST,
    OLDEST,
    RENAMES,
    Rename,
    check_supported,
    is_before,
    is_tested,
    name_in,
    order,
)
from pipeline.errors import ConfigError

IN_ORDER = (
    "0.21.0", "1.0.0rc6", "1.0.0", "1.1.0", "1.2.0rc2", "1.2.0rc8", "1.2.0rc8.post1", "1.2.0", "1.2.0.post1", "1.2.1",
    "1.3.0rc9", "1.3.0rc14", "1.3.0rc29", "1.3.0", "1.4.0rc0", "2.0",
)  # fmt: skip


@given(st.sampled_from(IN_ORDER), st.sampled_from(IN_ORDER))
def test_a_release_comes_after_its_candidates_and_before_its_fixes(one: str, other: str) -> None:
    assert is_before(one, other) == (IN_ORDER.index(one) < IN_ORDER.index(other))


def test_a_build_is_ordered_as_its_release() -> None:
    assert order("1.3.0rc24.dev20260801+g0123abc") == order("v1.3.0rc24") == order("1.3.0rc24")


@pytest.mark.parametrize("version", ["", "latest", "1", "1.3.0-rc1", "1.3.x"])
def test_no_version_is_said(version: str) -> None:
    with pytest.raises(ConfigError, match=rf"engine\.version={version}: is no version of TensorRT-LLM; write e\.g\. 1"):
        order(version)


def test_the_listed_releases_are_in_order_and_tested() -> None:
    assert sorted(LISTED, key=order) == list(LISTED)
    assert all(is_tested(version) for version in LISTED)
    assert is_tested(f"v{NEWEST}+cu130")


@pytest.mark.parametrize("version", ["1.2.0", "1.3.0rc25", "1.3.0", f"{NEWEST}.post1"])
def test_a_release_without_its_own_list_is_not_tested(version: str) -> None:
    assert not is_tested(version)


def test_too_old_a_version_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match=rf"engine\.version=0\.21\.0: .* use {OLDEST} or newer"):
        check_supported("0.21.0")
    check_supported(OLDEST)


@pytest.mark.parametrize("rename", RENAMES, ids=lambda rename: rename.old)
def test_a_key_has_its_old_name_before_it_was_renamed(rename: Rename) -> None:
    for version, name in ((OLDEST, rename.old), (rename.until, rename.key), (NEWEST, rename.key)):
        assert name_in(version, rename.key, rename.decoding_type) == name


def test_only_mtp_called_its_draft_length_otherwise() -> None:
    key = "speculative_config.max_draft_len"
    assert name_in("1.2.0", key, "MTP") == "speculative_config.num_nextn_predict_layers"
    assert name_in("1.2.0", key, "Eagle3") == key
    assert name_in("1.2.0", "moe_config.backend") == "moe_config.backend"
