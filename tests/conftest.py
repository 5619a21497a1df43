"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("tests", deadline=None)  # how long an example takes says nothing on a shared machine
settings.load_profile("tests")
