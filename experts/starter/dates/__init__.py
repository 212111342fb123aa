"""The dates starter expert: its data, its training and its evaluation."""
