"""Mutation testing: a small change of interpreter, codec or stores is noticed by a test, or is no change at all."""
