"""How long Hypothesis looks: a minute or so in every run of CI, as long as wanted with ZART_DEEP=1."""

from __future__ import annotations

import os
import time

from hypothesis import HealthCheck, settings

os.environ.setdefault("ZART_RUN", f"run-{os.getpid()}-{time.time_ns()}")  # workers inherit it

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile("ci", deadline=None, print_blob=True, suppress_health_check=SILENT)
settings.register_profile("deep", settings.get_profile("ci"), max_examples=5000)
settings.load_profile("deep" if os.environ.get("ZART_DEEP") else "ci")
