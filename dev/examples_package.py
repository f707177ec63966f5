"""The example Dags (`example_dags`) and the job scripts that they run (`ray_jobs`).

Only in the wheel: with `[core] load_examples`, Airflow 3.3 looks for the example Dags of a provider in a module that is
named after the distribution (apache/airflow#66305).
"""
