"""Choose the config to serve with, from stored rows: conditions, candidates, decision, fleet, and what mattered."""
