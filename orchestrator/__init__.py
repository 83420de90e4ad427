"""Configuration, stages, sweep, tracking, store, frontier, report, CLI: it knows all rooms."""
