"""The paper's tables on our ground: what `benchmarks/paper_tables.py` is made of."""
