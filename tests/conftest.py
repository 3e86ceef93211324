"""Settings that all tests share."""

from __future__ import annotations

import hypothesis

# A busy machine is not a failure: how long an example takes is not what the tests are about.
hypothesis.settings.register_profile("stforecast", deadline=None)
hypothesis.settings.load_profile("stforecast")
