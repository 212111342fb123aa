"""The workers: which there are, how they start, and how an expert comes and goes."""
