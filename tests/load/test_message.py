import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.load.message import MessageWriter


@given(vocab_size=st.integers(1, 20_000), data=st.data())
def test_prompt_arrives_as_it_was(vocab_size: int, data: st.DataObject) -> None:
    prompt = data.draw(st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=50))
    writer = MessageWriter("http://127.0.0.1:80", 'a "model"', vocab_size)
    head, _, body = writer.message(np.array(prompt), 7).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {
        "prompt": prompt, "model": 'a "model"', "max_tokens": 7, "min_tokens": 7, "ignore_eos": True, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip


def test_every_token_id_has_its_text() -> None:
    prompt = list(range(128_256))
    _, _, body = MessageWriter("http://h", "m", len(prompt)).message(np.array(prompt), 1).partition(b"\r\n\r\n")
    assert json.loads(body)["prompt"] == prompt


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://127.0.0.1:8000", b"POST /v1/completions HTTP/1.1", b"127.0.0.1:8000"),
        ("http://[::1]:8000/", b"POST /v1/completions HTTP/1.1", b"[::1]:8000"),
        ("https://gateway/llm/", b"POST /llm/v1/completions HTTP/1.1", b"gateway"),
    ],
)
def test_address_is_that_of_the_server(url: str, line: bytes, host: bytes) -> None:
    lines = MessageWriter(url, "m", 10).message(np.array([1]), 1).split(b"\r\n")
    assert lines[0] == line
    assert b"Host: " + host in lines
