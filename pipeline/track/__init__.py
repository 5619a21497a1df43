"""What changed from release to release: gains, where they come from, regressions."""
