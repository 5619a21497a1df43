"""Settings of all tests."""

import signal

from hypothesis import settings

# How long an example takes says nothing on a shared machine; 60 of them keep the whole of the tests within ten minutes.
settings.register_profile("tests", deadline=None, max_examples=60)
settings.load_profile("tests")

# A shell starts background jobs with SIGINT ignored, which children inherit; tests of Ctrl-C need it as on a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
