"""Settings of all tests."""

from hypothesis import settings

# A busy machine makes single examples slow; how long a test may take is pytest-timeout's.
settings.register_profile("fedqana", settings.default, deadline=None)
settings.load_profile("fedqana")
