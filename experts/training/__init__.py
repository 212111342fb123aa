"""Training of ternary experts, on `transformers.Trainer`."""
