"""The real server with a real, very small model: what goes over the wire, and how it starts, fails and stops."""

import contextlib
import http.client
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.engine.openvino import OpenvinoEngine
from pipeline.engine.process import free_port
from tests.engine.embedded_engine import CONTEXT_TOKENS, EMBEDDED, ENGINE_PYTHON, VOCAB, run_python, write_small_model

HOST = "127.0.0.1"
PATIENCE_S = 60.0
MAX_PROMPT_TOKENS = 64
"""The server under test runs without chunked prefill, and one batch takes so many tokens."""

LONG = CONTEXT_TOKENS - MAX_PROMPT_TOKENS
"""An output that takes the small model many seconds."""

Json = dict[str, Any]


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def wait_ready(self) -> None:
        """Wait for the ready line."""
        deadline = time.monotonic() + PATIENCE_S
        while "ready: " not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def get(self, path: str) -> bytes:
        """Body of a GET."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def post(self, path: str, body: Json | bytes) -> tuple[int, bytes]:
        """Status and body of a POST."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)) as connection:
            connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def complete(self, **body: Any) -> Json:
        """A completion without streaming."""
        status, answer = self.post("/v1/completions", body)
        assert status == 200, answer
        loaded: Json = json.loads(answer)
        return loaded

    def stream(self, path: str, body: Json) -> list[Json]:
        """Every chunk of a stream, its framing checked to the byte."""
        status, answer = self.post(path, {**body, "stream": True})
        assert status == 200, answer
        *events, rest = answer.decode().split("\n\n")
        assert rest == ""
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        assert events[-1] == "data: [DONE]"
        return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]

    @contextlib.contextmanager
    def request(self, body: Json) -> Iterator[http.client.HTTPConnection]:
        """A completion under way; leaving the block hangs up."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)) as connection:
            connection.request("POST", "/v1/completions", json.dumps(body))
            yield connection

    @contextlib.contextmanager
    def begun_stream(self, body: Json) -> Iterator[http.client.HTTPResponse]:
        """A stream whose first chunk has come; leaving the block hangs up."""
        with self.request({**body, "stream": True}) as connection, connection.getresponse() as answer:
            assert answer.readline().startswith(b"data: ")
            yield answer

    def metric(self, name: str) -> float:
        """A value of /metrics."""
        lines = self.get("/metrics").decode().splitlines()
        return float(next(line.split(" ")[1] for line in lines if line.startswith(f"{name} ")))

    def wait_metric(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        deadline = time.monotonic() + PATIENCE_S
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    done = write_small_model(path)
    assert done.returncode == 0, done.stderr
    return path


def start(model: Path, log: Path, scheduler: Json, plugin: Json | None = None, port: int | None = None) -> Server:
    """Start a server; returns at once."""
    port = port if port is not None else free_port(HOST)
    command = [str(ENGINE_PYTHON), str(EMBEDDED / "server.py"), "--model", str(model), "--model-name", "small"]
    command += ["--host", HOST, "--port", str(port)]
    command += ["--scheduler", json.dumps(scheduler), "--plugin", json.dumps(plugin or {})]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    return Server(process, port, log)


@contextlib.contextmanager
def running(model: Path, log: Path, scheduler: Json, plugin: Json | None = None) -> Iterator[Server]:
    """A server that is ready, and gone afterwards."""
    server = start(model, log, scheduler, plugin)
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scheduler = {"max_num_seqs": 2, "max_num_batched_tokens": MAX_PROMPT_TOKENS, "dynamic_split_fuse": False}
    scheduler["cache_size"] = 1
    log = tmp_path_factory.mktemp("server") / "log"
    with running(model, log, scheduler, {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}) as started:
        yield started


def greedy(max_tokens: int, **more: Any) -> Json:
    """A request for exactly so many tokens."""
    return {"prompt": [5, 6, 7], "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, **more}


def test_completion_stream_is_openais_to_the_letter(server: Server) -> None:
    *texts, last = server.stream("/v1/completions", greedy(9, model="small"))
    assert len(texts) == 9
    for chunk in [*texts, last]:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
        assert chunk["object"] == "text_completion"
        assert chunk["model"] == "small"
        assert (chunk["id"], chunk["created"]) == (last["id"], last["created"])
        assert [set(choice) for choice in chunk["choices"]] == [{"index", "text", "logprobs", "finish_reason"}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in texts] == [None] * 9
    assert last["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}


def test_chat_stream_opens_with_the_role(server: Server) -> None:
    body = greedy(5, messages=[{"role": "user", "content": "abc"}])
    opening, *texts, last = server.stream("/v1/chat/completions", body)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(texts) == 5
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in texts)
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "length"
    for chunk in [opening, *texts, last]:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == last["id"]
        assert set(chunk["choices"][0]) == {"index", "delta", "logprobs", "finish_reason"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in [opening, *texts]] == [None] * 6


@pytest.mark.parametrize("is_chat", [False, True])
def test_usage_chunk_comes_only_when_asked_and_has_no_choices(server: Server, is_chat: bool) -> None:
    path = "/v1/chat/completions" if is_chat else "/v1/completions"
    body = greedy(4, messages=[{"role": "user", "content": "abc"}], stream_options={"include_usage": True})
    *chunks, usage = server.stream(path, body)
    assert all(chunk["choices"] and chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 4
    assert usage["id"] == chunks[0]["id"]
    off = server.stream(path, body | {"stream_options": {"include_usage": False}})
    assert all(chunk["choices"] and "usage" not in chunk for chunk in off)


@pytest.mark.parametrize("is_chat", [False, True])
def test_running_usage_grows_to_the_total(server: Server, is_chat: bool) -> None:
    path = "/v1/chat/completions" if is_chat else "/v1/completions"
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = greedy(7, messages=[{"role": "user", "content": "abc"}], stream_options=options)
    chunks = server.stream(path, body)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [*([0] if is_chat else []), 1, 2, 3, 4, 5, 6, 7, 7, 7]
    assert all(
        c["usage"]["total_tokens"] == c["usage"]["prompt_tokens"] + n for c, n in zip(chunks, counts, strict=True)
    )
    assert len({chunk["usage"]["prompt_tokens"] for chunk in chunks}) == 1


def test_running_usage_needs_include_usage_as_in_vllm(server: Server) -> None:
    chunks = server.stream("/v1/completions", greedy(3, stream_options={"continuous_usage_stats": True}))
    assert all("usage" not in chunk for chunk in chunks)


def test_a_client_that_counts_as_inferencex_does_gets_exact_tokens(server: Server) -> None:
    """It times chunks that have choices, and takes the number of tokens from the one that has none."""
    body = greedy(11, best_of=1, logprobs=None, stream_options={"include_usage": True})
    timed, output_tokens = 0, None
    for chunk in server.stream("/v1/completions", body):
        if chunk.get("choices"):
            timed += 1
        elif chunk.get("usage"):
            output_tokens = chunk["usage"]["completion_tokens"]
    assert output_tokens == 11
    assert timed >= 2


def test_log_probabilities_are_those_of_the_tokens_of_the_answer(server: Server) -> None:
    plain = server.complete(**greedy(12))["choices"][0]
    choice = server.complete(**greedy(12, logprobs=1))["choices"][0]
    found = choice["logprobs"]
    assert plain["logprobs"] is None
    assert choice["text"] == plain["text"]
    assert [len(found[name]) for name in ("tokens", "token_logprobs", "top_logprobs")] == [12, 12, 12]
    assert all(-50 < value <= 0 for value in found["token_logprobs"])
    again = server.complete(**greedy(12, logprobs=1))["choices"][0]["logprobs"]
    assert again["tokens"] == found["tokens"]
    assert again["token_logprobs"] == pytest.approx(found["token_logprobs"], abs=1e-3)
    drawn = server.complete(**greedy(3, logprobs=0, temperature=1.0, seed=1))["choices"][0]
    assert drawn["logprobs"]["top_logprobs"] is None  # of a drawn token nobody knows whether it is the likeliest


def test_token_counts_are_exact_for_many_at_once(server: Server) -> None:
    wanted = [(length, number) for length in (1, 33, MAX_PROMPT_TOKENS) for number in (1, 2, 50, 200)]

    def ask(length: int, number: int) -> Json:
        body = greedy(number, prompt=[10 + length] * length, min_tokens=number)
        options = {"include_usage": True}
        usage: Json = server.stream("/v1/completions", body | {"stream_options": options})[-1]["usage"]
        return usage

    with ThreadPoolExecutor(len(wanted)) as pool:
        usages = list(pool.map(lambda pair: ask(*pair), wanted))
    assert usages == [
        {"prompt_tokens": length, "completion_tokens": number, "total_tokens": length + number}
        for length, number in wanted
    ]


def test_every_output_token_is_counted_by_the_server(server: Server) -> None:
    before = server.metric("tpw_generation_tokens_total")
    server.complete(**greedy(21))
    assert server.metric("tpw_generation_tokens_total") - before == 21


@pytest.mark.parametrize("prompt", ["ab", [259 + 1], [[259 + 1]], ["ab"]])
def test_text_and_its_token_ids_are_the_same_prompt(server: Server, prompt: Any) -> None:
    """Token 259 is the first merge, `aa`; 260 is `ab`."""
    answer = server.complete(**greedy(8, prompt=prompt))
    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["choices"] == server.complete(**greedy(8, prompt=[260]))["choices"]


def test_streamed_text_is_the_whole_text(server: Server) -> None:
    body = greedy(120, temperature=1, seed=3)
    whole = server.complete(**body)
    assert set(whole) == {"id", "object", "created", "model", "choices", "usage"}
    assert whole["object"] == "text_completion"
    assert whole["choices"][0]["finish_reason"] == "length"
    texts = [chunk["choices"][0]["text"] for chunk in server.stream("/v1/completions", body)]
    assert "".join(texts) == whole["choices"][0]["text"]
    assert len(whole["choices"][0]["text"]) > 50


def test_chat_answers_like_the_completion_of_its_template(server: Server) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    status, answer = server.post("/v1/chat/completions", greedy(8, messages=[{"role": "user", "content": parts}]))
    chat = json.loads(answer)
    assert status == 200
    assert chat["object"] == "chat.completion"
    text = server.complete(**greedy(8, prompt="ab"))["choices"][0]["text"]
    assert chat["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "length"}
    ]


def test_sampling_follows_the_seed(server: Server) -> None:
    def text(**more: Any) -> str:
        found: str = server.complete(**greedy(40, **more))["choices"][0]["text"]
        return found

    assert text() == text()
    assert text(temperature=1, seed=5) == text(temperature=1, seed=5)
    assert text(temperature=1, seed=5) != text(temperature=1, seed=6)
    assert text(temperature=1) != text(temperature=1)


def test_end_of_sequence_stops_unless_ignored_or_too_early(server: Server) -> None:
    """The small vocabulary makes the end token likely; seeds make it certain which requests meet it."""

    def answer(seed: int, **more: Any) -> tuple[int, str]:
        found = server.complete(prompt=[5, 6, 7], max_tokens=300, temperature=1, seed=seed, **more)
        return found["usage"]["completion_tokens"], found["choices"][0]["finish_reason"]

    free = {seed: answer(seed) for seed in range(6)}
    assert all((reason == "length") == (number == 300) for number, reason in free.values())
    seed, number = next((seed, number) for seed, (number, reason) in free.items() if reason == "stop")
    assert answer(seed, min_tokens=number)[0] >= number
    assert answer(seed, min_tokens=number + 1)[0] > number
    assert answer(seed, ignore_eos=True) == (300, "length")


def test_defaults_are_openais(server: Server) -> None:
    answer = server.complete(prompt="ab", ignore_eos=True, max_tokens=None, stream=None, unheard_of={"x": 1})
    assert answer["usage"]["completion_tokens"] == 16
    both = server.complete(prompt="ab", ignore_eos=True, max_tokens=5, max_completion_tokens=6)
    assert both["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompt": None}, "'prompt'"),
        ({"prompt": 5}, "'prompt'"),
        ({"prompt": ["a", "b"]}, "'prompt'"),
        ({"prompt": [[1], [2]]}, "'prompt'"),
        ({"prompt": [1, "a"]}, "'prompt'"),
        ({"prompt": [True]}, "'prompt'"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": [VOCAB]}, f"token id {VOCAB} is outside the vocabulary of {VOCAB}"),
        ({"prompt": [-1]}, "token id -1"),
        ({"prompt": [5] * (MAX_PROMPT_TOKENS + 1)}, f"one batch takes {MAX_PROMPT_TOKENS}"),
        ({"max_tokens": CONTEXT_TOKENS}, f"maximum context length of {CONTEXT_TOKENS}"),
        ({"max_tokens": 10**30}, "maximum context length"),
        ({"max_tokens": "9"}, "'max_tokens' must be of type int"),
        ({"max_tokens": 0}, "'max_tokens' must be at least 1"),
        ({"max_tokens": True}, "'max_tokens' must be of type int"),
        ({"min_tokens": 10}, "'min_tokens' 10 exceeds 'max_tokens' 9"),
        ({"temperature": -0.1}, "'temperature'"),
        ({"temperature": float("nan")}, "'temperature'"),
        ({"top_p": 0}, "'top_p'"),
        ({"seed": 2**70}, ""),
        ({"stream": "yes"}, "'stream' must be of type bool"),
        ({"stream_options": {"include_usage": True}}, "'stream_options'"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "'include_usage'"),
        ({"stop": ["x"]}, "'stop' is not implemented"),
        ({"logprobs": 2}, "'logprobs' is at most 1"),
        ({"logprobs": 1, "stream": True}, "'logprobs' is only implemented for completions that are not streamed"),
        ({"n": 2}, "'n' is not implemented"),
    ],
)
def test_wrong_requests_get_400_and_openais_error(server: Server, change: Json, named: str) -> None:
    status, answer = server.post("/v1/completions", {**greedy(9, temperature=1), **change})
    assert status == 400, answer
    error = json.loads(answer)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert named in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b'"text"'])
def test_malformed_json_gets_400(server: Server, body: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        status, answer = server.post(path, body)
        assert status == 400
        assert "JSON" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize(
    "messages", [None, [], ["a"], [{"role": "user"}], [{"role": "user", "content": [{"type": "image_url"}]}]]
)
def test_wrong_messages_get_400(server: Server, messages: Any) -> None:
    status, answer = server.post("/v1/chat/completions", {"messages": messages})
    assert status == 400
    assert json.loads(answer)["error"]["param"] == "messages"


def test_unknown_model_path_and_method_are_errors_of_the_same_shape(server: Server) -> None:
    for status, answer in (
        server.post("/v1/completions", greedy(1, model="other")),
        server.post("/v1/nothing", {}),
        server.post("/health", {}),
    ):
        assert status in {404, 405}
        assert json.loads(answer)["error"]["code"] == status


def test_models_version_and_health(server: Server) -> None:
    (model,) = json.loads(server.get("/v1/models"))["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("small", "model", CONTEXT_TOKENS)
    assert server.get("/health") == b""
    installed = run_python("-c", "import openvino_genai; print(openvino_genai.__version__)").stdout.strip()
    assert json.loads(server.get("/version")) == {"version": installed}


def test_log_says_what_was_resolved(server: Server) -> None:
    effective = OpenvinoEngine().effective_config(server.log.read_text().splitlines())
    assert effective["scheduler.max_num_seqs"] == "2"
    assert effective["scheduler.dynamic_split_fuse"] == "False"
    assert effective["scheduler.use_cache_eviction"] == "False"
    assert effective["plugin.INFERENCE_NUM_THREADS"] == "1"
    assert effective["compiled.INFERENCE_NUM_THREADS"] == "1"
    assert effective["compiled.INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.parametrize("is_stream", [True, False])
def test_client_that_leaves_frees_its_slot(server: Server, is_stream: bool) -> None:
    """Both slots are taken by requests of many seconds; were they not cancelled, the third would wait for them."""
    before = server.metric("tpw_generation_tokens_total")
    with ThreadPoolExecutor(1) as pool:
        with contextlib.ExitStack() as clients:
            for _ in range(2):
                clients.enter_context(server.begun_stream(greedy(LONG)) if is_stream else server.request(greedy(LONG)))
            server.wait_metric("tpw_num_requests_running", 2)
            waiting = pool.submit(server.complete, **greedy(4))
            server.wait_metric("tpw_num_requests_waiting", 1)
            assert server.metric("tpw_num_requests_running") == 2
        assert waiting.result(PATIENCE_S)["usage"]["completion_tokens"] == 4
    assert server.complete(**greedy(5))["usage"]["completion_tokens"] == 5
    server.wait_metric("tpw_num_requests_running", 0)
    assert server.metric("tpw_num_requests_waiting") == 0
    assert server.metric("tpw_generation_tokens_total") - before < LONG


def test_request_that_outgrows_the_kv_cache_ends_in_an_error(model: Path, tmp_path: Path) -> None:
    """Four blocks of 32 tokens: a prompt of 100 tokens leaves room for fewer than 100 more."""
    with running(model, tmp_path / "log", {"num_kv_blocks": 4}) as server:
        body = greedy(100, prompt=[5] * 100)
        *texts, error = server.stream("/v1/completions", body)
        assert 0 < len(texts) < 100
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in texts)
        assert "KV cache is full" in error["error"]["message"]
        assert server.post("/v1/completions", body)[0] == 500
        assert server.complete(**greedy(3))["usage"]["completion_tokens"] == 3
        assert server.metric("tpw_kv_cache_usage_ratio") == 0.25  # six tokens: one block of the four


def test_sigterm_ends_server_and_generator_amid_a_stream(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "log", {"cache_size": 1}) as server:
        (generator,) = psutil.Process(server.process.pid).children()
        with server.begun_stream(greedy(LONG)):
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE_S) == 0
        assert server.log.read_text().splitlines()[-1] == "stopping: SIGTERM"
        assert not generator.is_running()


def test_server_ends_when_the_generator_dies(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "log", {"cache_size": 1}) as server:
        (generator,) = psutil.Process(server.process.pid).children()
        with server.begun_stream(greedy(LONG)) as stream:
            generator.kill()
            assert b'"error"' in stream.read()
        assert server.process.wait(PATIENCE_S) == 1
        assert server.log.read_text().splitlines()[-1] == "error: the generator process was killed by SIGKILL"


def test_generator_ends_when_the_server_dies(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "log", {"cache_size": 1}) as server:
        (generator,) = psutil.Process(server.process.pid).children()
        with server.begun_stream(greedy(LONG)):
            server.process.kill()
            deadline = time.monotonic() + PATIENCE_S
            while generator.is_running() and generator.status() != psutil.STATUS_ZOMBIE:  # nobody may reap an orphan
                assert time.monotonic() < deadline, "the generator still runs"
                time.sleep(0.01)


def test_busy_port_is_one_clear_line(server: Server, model: Path, tmp_path: Path) -> None:
    second = start(model, tmp_path / "log", {}, port=server.port)
    assert second.process.wait(PATIENCE_S) == 1
    assert second.log.read_text() == f"error: cannot listen on {HOST} port {server.port}: Address already in use\n"


def test_engine_that_cannot_start_is_one_clear_line(model: Path, tmp_path: Path) -> None:
    failed = start(model, tmp_path / "log", {}, {"KV_CACHE_PRECISION": "x"})
    assert failed.process.wait(PATIENCE_S) == 1
    last = failed.log.read_text().splitlines()[-1]
    assert last.startswith("error: cannot load ")
    assert "Wrong value x for property key KV_CACHE_PRECISION" in last
    assert "Traceback" not in failed.log.read_text()


REFUSE_EACH = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import generator
for model, scheduler in json.loads(sys.argv[2]):
    try:
        generator.Generator(pathlib.Path(model), scheduler, {})
        print("accepted")
    except generator.SettingsError as error:
        print(error)
"""


def test_settings_and_models_that_cannot_be_are_refused_by_name(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no GGUF at all")
    (tmp_path / "folder").mkdir()
    crowded = {"max_num_seqs": 9, "max_num_batched_tokens": 8, "dynamic_split_fuse": False}
    refusals = {
        "no model at": (tmp_path / "missing.gguf", {}),
        "is not a GGUF file": (tmp_path / "text.gguf", {}),
        "does not say its longest context": (tmp_path / "folder", {}),
        "unknown scheduler setting no_such; known: ": (model, {"no_such": 1}),
        "scheduler setting max_num_seqs cannot be 'many'": (model, {"max_num_seqs": "many"}),
        "must be at least 1": (model, {"max_num_batched_tokens": 0}),
        "max_num_seqs 9 must not exceed max_num_batched_tokens 8": (model, crowded),
    }
    done = run_python("-c", REFUSE_EACH, str(EMBEDDED), json.dumps(list(refusals.values()), default=str))
    assert done.returncode == 0, done.stderr
    for named, line in zip(refusals, done.stdout.splitlines(), strict=True):
        assert named in line


DECODE_ONE_BY_ONE = """
import sys
sys.path.insert(0, sys.argv[1])
import generator, openvino_genai
tokenizer = openvino_genai.Tokenizer(sys.argv[2])
text = "né€ 😀ab\\n"
stream, made = generator.Stream(None, None, None), []
ids = [int(token) for token in tokenizer.encode(text).input_ids.data[0]]
for place, token in enumerate(ids):
    stream.pending.append(token)
    before, after = tokenizer.decode([stream.shown, stream.shown + stream.pending])
    made.append(generator.new_text(stream, before, after, is_last=place == len(ids) - 1))
assert "".join(made) == text, made
assert len(ids) == len(text.encode()) - 1, ids
assert made.count("") == 1 + 2 + 3, made
"""


def test_characters_of_several_tokens_arrive_whole(model: Path) -> None:
    done = run_python("-c", DECODE_ONE_BY_ONE, str(EMBEDDED), str(model))
    assert done.returncode == 0, done.stderr
