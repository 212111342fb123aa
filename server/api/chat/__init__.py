"""Chat completions: what may be asked, and how an answer is written."""
