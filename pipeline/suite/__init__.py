"""A few cases to measure again and again, so that every release has its place on the front."""
