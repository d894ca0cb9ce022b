"""Settings of all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side already; a second thread each would only make them wait.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

from hypothesis import settings

# A busy machine makes single examples slow; how long a test may take is pytest-timeout's.
settings.register_profile("fedqana", settings.default, deadline=None)
settings.load_profile("fedqana")
