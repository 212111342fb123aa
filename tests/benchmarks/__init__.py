"""Measurements, one module for each command: `kernel`, `ternary` (see `trivium bench --help`)."""
