"""Trivium as a Ray Serve application: Ray places, scales and replaces what Trivium runs.

Requests do not pass through Ray on their way to a model: orchestrators speak HTTP with the
replicas' vLLM, as everywhere, and resume an answer whose replica is lost. `deploy/ray/` says how to
run it.
"""
