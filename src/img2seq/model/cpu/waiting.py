"""How threads of torch wait for each other."""

from __future__ import annotations

import os

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND")


def choose_waiting() -> None:
    """Tell libgomp, before torch is imported, how long a thread looks for work before it sleeps; a user's setting wins."""
    if not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = "20000"
