"""What all tests share: how hard hypothesis looks."""

import os

from hypothesis import settings

# No deadlines: a machine under load is no bug. In CI a failure must come again when the run is repeated.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
