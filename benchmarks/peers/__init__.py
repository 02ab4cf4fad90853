"""The same work on other engines: `make bench-peers`, or `python -m benchmarks.peers PYTHON`.

Rule 1: one driver, `driving`, gives every engine the same work and holds the watch; an engine's own file says only how
        it runs a workflow, sends an event and waits.
Rule 2: same machine, same server, same durability, in turns; each measurement is a process of its own, whose start is
        not counted.
Rule 3: what an engine cannot do is said, not left out.
"""
