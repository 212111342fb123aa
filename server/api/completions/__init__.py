"""`POST /v1/completions`: text that goes on from a raw prompt."""
