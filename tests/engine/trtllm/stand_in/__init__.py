"""A stand-in for TensorRT-LLM: an environment with `trtllm-serve` in it that behaves, or misbehaves, as it is told."""
