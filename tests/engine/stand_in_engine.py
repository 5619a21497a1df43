"""A stand-in engine, run by path: answers, refuses, dies, or starts processes that are hard to end, as it is told."""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF_SLEEP = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
RESTLESS_SCRIPT = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    subprocess.run(["sh", "-c", "sleep 0.001; sleep 0.002"])
"""
RESTLESS = [sys.executable, "-c", RESTLESS_SCRIPT]
"""Its children come and go while it is being ended."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", choices=["completion", "html", "error", "refusal", "nothing"], default="completion")
    parser.add_argument("--num-unready", type=int, default=0, help="answers 503 so many times first")
    parser.add_argument("--die-with", type=int, help="exit status; negative: dies by this signal")
    parser.add_argument("--processes", choices=["none", "sessions", "daemon", "deaf", "restless"], default="none")
    args = parser.parse_args()
    match args.processes:
        case "sessions":
            subprocess.Popen(SLEEP, start_new_session=True)
        case "daemon":  # its parent ends at once, so that nothing links it to us
            subprocess.run(["/bin/sh", "-c", '"$@" & exit 0', "sh", *SLEEP], start_new_session=True, check=True)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(DEAF_SLEEP, start_new_session=True)
        case "restless":
            for _ in range(3):
                subprocess.Popen(RESTLESS, start_new_session=True)
    for number in range(100):
        print(f"line {number}", flush=True)
    if args.die_with is not None:
        if args.die_with < 0:
            os.kill(os.getpid(), -args.die_with)
        sys.exit(args.die_with)
    serve(args)


def serve(args: argparse.Namespace) -> None:
    left = threading.Semaphore(args.num_unready)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if left.acquire(blocking=False):
                self.send_error(503)
                return
            if args.answer == "nothing":
                time.sleep(600)
            body = {
                "completion": json.dumps({"choices": [{"text": "x"}]}),
                "error": json.dumps({"error": "no model"}),
                "html": "<html>welcome</html>",
                "refusal": json.dumps({"error": "prompt is too long"}),
            }[args.answer].encode()
            self.send_response(400 if args.answer == "refusal" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
