"""Faults at random, seeded moments of real sweeps; `pytest -m chaos`."""
