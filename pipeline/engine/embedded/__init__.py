"""The embedded engine: a small OpenAI-compatible server on OpenVINO GenAI, and the random-weight model it serves.

The files here run by path in the engine's own Python environment (`make .venv-openvino`), never in ours:

    tiny_gguf.py   writes a random-weight Llama as GGUF
    server.py      speaks HTTP; holds one generator process
    generator.py   holds the ContinuousBatchingPipeline; requests in, tokens out, over a socket

They import the standard library, aiohttp, gguf, numpy and openvino_genai only.
"""
