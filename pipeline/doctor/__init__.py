"""Is this machine ready for a study: one finding per check, and what to do where one is not well. Changes nothing."""
