"""Stores with one defect each, which the contract must reject, and for the right reason."""
