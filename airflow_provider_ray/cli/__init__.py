"""The `airflow ray` commands."""
