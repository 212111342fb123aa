"""Metrics, traces, log lines."""
