"""Stand-alone scripts that run in another Python environment, mostly an engine's own, never in ours.

    vllm_random_weights.py   vLLM's command line with one more load format: truly random weights
    trtllm_llm_args.py       what TensorRT-LLM says about a YAML file before it loads anything
    environment.py           what an engine's environment gives it: GPUs, MPI, shared memory, limits
    aiconfigurator_estimates.py    throughput and latency that NVIDIA's aiconfigurator expects

Importing them here is safe: they need nothing but the standard library until they run.
"""
