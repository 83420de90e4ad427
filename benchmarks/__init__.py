"""Figures of docs/benchmarks.md; each script says how it is run."""
