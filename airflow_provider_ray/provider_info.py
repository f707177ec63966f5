"""Provider metadata for Airflow: a plain dict without imports, because Airflow reads it at every start."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "Ray"


def get_provider_info() -> dict[str, Any]:
    """Return the metadata in the format of Airflow 3.3's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-ray-fleet",
        "name": "Ray",
        "description": "Jobs, Serve applications and fan-out on fleets of `Ray <https://www.ray.io/>`__ clusters.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.ray.io/",
                "tags": ["software"],
            }
        ],
        "hooks": [_modules("airflow_provider_ray.hooks.ray")],
        "operators": [_modules("airflow_provider_ray.operators.job", "airflow_provider_ray.operators.serve")],
        "sensors": [_modules("airflow_provider_ray.sensors.cluster", "airflow_provider_ray.sensors.job")],
        "triggers": [
            _modules(
                "airflow_provider_ray.triggers.cluster",
                "airflow_provider_ray.triggers.job",
                "airflow_provider_ray.triggers.serve",
            )
        ],
        "extra-links": ["airflow_provider_ray.links.RayJobLink", "airflow_provider_ray.links.RayPictureLink"],
        "cli": ["airflow_provider_ray.cli.definition.get_cli_commands"],
        "config": {"ray": {"description": "Request pacing, log limits and identity.", "options": _options()}},
        "connection-types": [
            {
                "connection-type": "ray",
                "hook-class-name": "airflow_provider_ray.hooks.ray.RayHook",
                "hook-name": "Ray",
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {
                        "host": "Dashboard address",
                        "schema": "Scheme",
                        "login": "Proxy user",
                        "password": "Cluster token, or the proxy user's password",
                    },
                    "placeholders": {
                        "host": "ray-head.example or https://ray.example/prefix",
                        "port": "8265",
                        "schema": "http",
                        "login": "only if a proxy demands HTTP basic authentication",
                        "password": "only if the cluster uses token authentication",
                    },
                },
                "conn-fields": _connection_fields(),
            }
        ],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": _INTEGRATION, "python-modules": list(names)}


def _options() -> dict[str, Any]:
    """Return the options in the section ``[ray]``; :mod:`airflow_provider_ray.hooks.options` applies them."""
    return {
        "fault_budget": _option("float", "120.0", "How long to retry transient errors of a cluster, in seconds."),
        "auth_budget": _option(
            "float",
            "300.0",
            "How long to keep trying while a cluster rejects credentials that it accepted before, in seconds.",
        ),
        "answer_timeout": _option(
            "float", "10.0", "Seconds after which a cluster counts as unavailable when several are queried at once."
        ),
        "stop_timeout": _option("float", "15.0", "Seconds to wait for a job to end after a stop request."),
        "refresh": _option("float", "1.0", "Seconds between requests for job states, per cluster and triggerer."),
        "page_refresh": _option(
            "float",
            "3.0",
            "Seconds between the page's requests to a cluster, and between a browser's requests to the API server.",
        ),
        "log_lines_per_second": _option("integer", "1000", "Maximum number of lines of a driver log shown per second."),
        "log_bytes_per_second": _option(
            "integer", "1048576", "Maximum number of bytes of a driver log shown per second."
        ),
        "log_followed_bytes": _option(
            "integer", "33554432", "Maximum number of bytes of a driver log shown; after that, only its last lines."
        ),
        "log_last_lines": _option(
            "integer", "20", "Number of last lines of a driver log that are shown regardless of the limits."
        ),
        "logs_at_once": _option(
            "integer", "50", "Maximum number of driver logs of a cluster that a process reads at the same time."
        ),
        "installation": _option(
            "string",
            None,
            "Name of this Airflow in the metadata of its jobs, if several share a cluster. Default: [api] base_url.",
        ),
    }


def _option(kind: str, default: str | None, description: str) -> dict[str, Any]:
    return {"description": description, "version_added": "0.1.0", "type": kind, "example": None, "default": default}


def _connection_fields() -> dict[str, Any]:
    """Return the extra fields of the connection; Airflow masks names with ``token`` or ``auth_header`` in them."""
    return {
        "verify_ssl": _field(
            "Verify TLS", "Verify the certificates of the dashboard and of Serve.", "boolean", default=True
        ),
        "ca_cert": _field("CA bundle", "Path to a PEM file on the Airflow hosts.", "string"),
        "client_cert": _field("Client certificate", "Path to a PEM file, for mutual TLS.", "string"),
        "client_key": _field("Client key", "Path to the private key, unless it is in the certificate file.", "string"),
        "path_prefix": _field("Path prefix", "Path under which a proxy serves the dashboard, such as /ray.", "string"),
        "cluster_token": _field(
            "Cluster token",
            "Only with a proxy user: the token, which then goes into X-Ray-Authorization.",
            "string",
            format="password",
        ),
        "auth_headers": _field("Headers", "Additional headers for the dashboard, as a JSON object.", "object"),
        "connect_timeout": _field("Connect timeout (s)", "Default: 5.", "number", exclusiveMinimum=0),
        "read_timeout": _field("Read timeout (s)", "Default: 30.", "number", exclusiveMinimum=0),
        "serve_url": _field(
            "Serve address",
            "Base URL at which Airflow reaches Ray Serve. Default: the dashboard's host and the port that Serve uses.",
            "string",
        ),
        "serve_token": _field(
            "Serve token",
            "Bearer token for Serve. The cluster token is never sent to Serve.",
            "string",
            format="password",
        ),
        "serve_auth_headers": _field("Serve headers", "Additional headers for Serve, as a JSON object.", "object"),
        "public_url": _field(
            "Public dashboard address", "For links in the UI, if browsers use a different address.", "string"
        ),
        "labels": _field("Labels", 'Labels that selectors match, such as {"site": "hpc", "gpu": "true"}.', "object"),
        "max_jobs": _field(
            "Maximum concurrent jobs",
            "Tasks wait for room while this many jobs are active. Default: no limit.",
            "integer",
            minimum=1,
        ),
        "job_retention": _field(
            "Days to keep records of jobs",
            "Ray keeps them all, and listing them takes longer with each. After this many days, the triggerer deletes "
            "those of ended jobs that this Airflow submitted. Default: they are kept.",
            "number",
            minimum=1,
        ),
    }


def _field(label: str, description: str, kind: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}
