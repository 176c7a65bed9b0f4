"""Made for speed on a CPU. Each part has a plain twin, is switched off in `switch.py`, and stays while an ablation pays for it."""
