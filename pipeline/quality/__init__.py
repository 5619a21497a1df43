"""Does a candidate config still answer as a reference does? Compared through the same OpenAI endpoint."""
