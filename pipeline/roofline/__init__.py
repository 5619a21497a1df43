"""Throughput, power and memory fit of GPUs we may not have, from published facts and few fitted constants."""
