"""Serving engines: adapters, one process runner, the embedded engine."""
