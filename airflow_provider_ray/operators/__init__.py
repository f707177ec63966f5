"""Operators: submit a job, call a Serve application."""
