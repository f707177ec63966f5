"""Asking several clusters at once."""
