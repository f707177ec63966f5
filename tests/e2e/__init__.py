"""Real Airflow on real Ray heads."""
