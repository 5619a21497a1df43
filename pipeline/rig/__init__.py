"""The two ways to get rows: `served` (engine, load, meter) and `modelled` (roofline)."""
