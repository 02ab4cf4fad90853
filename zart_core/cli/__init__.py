"""The `zart` command; `zart --help` says what it does.

Rule 1: only `run` takes executions up; the others read the log or post to it, beside other processes.
Rule 2: what went wrong is one line on stderr that says what to do, and an exit code (`exits.py`).
Rule 3: text that comes from data is escaped before it reaches a terminal (`texts.py`).
"""
