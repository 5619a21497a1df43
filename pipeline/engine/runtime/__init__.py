"""Where an engine's own software runs: an environment on this machine, or a container."""
