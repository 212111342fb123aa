"""Clients that people have, against the real HTTP API with fake workers behind it."""
