"""Expert tokens: the vocabulary, fitting the head on a frozen meta LLM, the meta worker."""
