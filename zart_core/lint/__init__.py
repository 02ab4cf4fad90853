"""What in the code of workflows would not come out the same twice, found by reading and never by running it.

Rule 1: nothing of the user's is imported; modules are found as the import system finds them, and parsed.
Rule 2: a finding is certain, or it is not made: what cannot be told from the source alone is passed over.
Rule 3: the table of rules (`rules.py`) is the only place that says what is found, why and what to do.
"""

from zart_core.lint.findings import Finding
from zart_core.lint.rules import RULES, Rule
from zart_core.lint.running import Report, lint

__all__ = ["RULES", "Finding", "Report", "Rule", "lint"]
