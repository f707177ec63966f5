"""Every place where this package relies on something that Airflow does not document.

The modules are divided by process: ``tasks`` on workers, ``triggerer``, ``server`` in the API server, ``cli`` and
``cli_config``, and ``database`` for the API server and the command line. ``templates`` serves Dag files and workers.
Each entry says why it is needed, the upstream issue if there is one, and when to delete it. Code elsewhere imports
documented names of Airflow (``airflow.sdk``, ``airflow.triggers.base``) and those that
``apache-airflow-providers-common-compat`` exports.
"""
