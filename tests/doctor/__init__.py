"""Checks of a machine, on this one and on stand-ins that are broken in known ways."""
