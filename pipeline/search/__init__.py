"""Proposals: baseline, prior, sampler over stored trials."""
