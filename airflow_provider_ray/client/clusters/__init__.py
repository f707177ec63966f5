"""Querying several clusters at the same time."""
