"""The arithmetic starter expert: its data, its training, its evaluation and its weights."""
