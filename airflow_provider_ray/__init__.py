"""Apache Airflow provider for fleets of Ray clusters."""

__version__ = "0.1.0"
