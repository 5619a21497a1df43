"""HTTP to a server itself, whatever proxy the environment names."""

import http.client
import json
import urllib.request
from collections.abc import Mapping

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

FAILURES = (OSError, http.client.HTTPException)
"""What `get` and `post` raise; an answer with an error status is a `urllib.error.HTTPError`, an OSError."""


def get(url: str, timeout_s: float) -> bytes:
    """Body of the answer to a GET."""
    with _OPENER.open(url, timeout=timeout_s) as answer:
        return bytes(answer.read())


def post(url: str, body: Mapping[str, object], timeout_s: float) -> bytes:
    """Body of the answer to a POST of JSON."""
    request = urllib.request.Request(  # noqa: S310  # always http, to an engine
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with _OPENER.open(request, timeout=timeout_s) as answer:
        return bytes(answer.read())


def as_object(text: bytes) -> dict[str, object]:
    """A JSON object; empty where the text is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
