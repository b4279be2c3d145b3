"""Profiles of hypothesis for the whole suite.

`quick` is what a developer runs; `ci` tries more examples and always the same ones, so that a failure there is nobody's
bad luck. HYPOTHESIS_PROFILE chooses one by name; without it, CI=true chooses `ci`.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", deadline=None, print_blob=True, max_examples=50)
settings.register_profile(
    "ci", deadline=None, print_blob=True, max_examples=200, derandomize=True, database=None
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick")
)
