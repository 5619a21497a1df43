"""Search LLM serving configurations, scored by measured tokens per joule."""

__version__ = "0.1.0"
