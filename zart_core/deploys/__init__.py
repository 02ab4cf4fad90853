"""Changing code under running workflows: does the code at hand fit what is on record?

Rule 1: nothing here claims, writes or runs a step; logs are read and replayed, also while workers run.
"""
