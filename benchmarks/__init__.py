"""What the budgets are measured with: `make bench`, or `python -m benchmarks [ROW ...]`.

Rule 1: every figure is a ratio in one run: the thing itself and a bare loop beside it, interleaved.
Rule 2: a bare loop does the same work without Zart: the same generator driven by next and send, the same rows
        inserted in the same schema on the same settings, the same bytes appended and synced.
"""
