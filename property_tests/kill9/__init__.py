"""Kill -9 at any moment: a real worker process, the same log for many rounds, and what must be so after each."""
