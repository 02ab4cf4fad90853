"""What the budgets are measured with: `make bench`, or `python -m benchmarks [ROW ...]`.

Rule 1: every figure is a ratio in one run: the thing itself and a bare loop beside it, in turns, in one process.
Rule 2: a bare loop does the same work without Zart and shares no code with it: the same generator driven by next and
        send, the same rows written to the same tables on the same settings, the same bytes appended and synced.
Rule 3: nothing is asserted about time; who reads the table judges.
"""
