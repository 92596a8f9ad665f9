"""Weights of others, by the hash of their content: where they come from, fetching, checking and keeping them."""
