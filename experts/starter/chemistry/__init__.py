"""The chemistry starter expert: its facts, its data, its training and its evaluation."""
