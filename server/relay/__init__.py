"""One request: from the first prompt over every handoff to the last token."""
