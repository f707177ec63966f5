"""The bridge from an Airflow connection to a client of the cluster."""
