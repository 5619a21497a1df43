"""Benchmarks of this package's own parts; each prints one JSON object last."""
