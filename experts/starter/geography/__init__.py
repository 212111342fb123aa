"""The geography starter expert: its facts, its data, its training and its evaluation."""
