"""The load: one seeded request sequence and the streaming client."""
