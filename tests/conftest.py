"""Settings of all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side already; a second thread each would only make them wait.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import pytest
from hypothesis import settings

# A busy machine makes single examples slow; how long a test may take is pytest-timeout's.
settings.register_profile("fedqana", settings.default, deadline=None)
settings.load_profile("fedqana")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module's tests in one process, and all that deploy several processes in the same one.

    Two deployments at once would make each other too slow for their own limits.
    """
    for item in items:
        together = "deployment" if item.path.parent.name == "deployment" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))
