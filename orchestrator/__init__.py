"""Configuration, stages, sweep, tracking, store, frontier, report and the CLI: it knows all rooms."""
