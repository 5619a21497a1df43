"""TensorRT-LLM: what a config becomes, what it refuses, what its log and its routes say."""
