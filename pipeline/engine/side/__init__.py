"""Stand-alone scripts that run by path in an engine's own Python environment, never in ours.

    vllm_random_weights.py   vLLM's command line with one more load format: truly random weights

Importing them here is safe: they need nothing but the standard library until they run.
"""
