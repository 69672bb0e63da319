"""What Airflow's provider manager knows about this package; the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from taskbridge_airflow import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the name of the package, its modules and its connection type."""
    return {
        "package-name": "taskbridge-airflow",
        "name": "taskbridge",
        "description": "Asynchronous tasks of document vendors, by taskbridge",
        "versions": [__version__],
        "integrations": [{"integration-name": "taskbridge", "external-doc-url": "", "tags": ["service"]}],
        "hooks": [{"integration-name": "taskbridge", "python-modules": ["taskbridge_airflow.hooks"]}],
        "operators": [{"integration-name": "taskbridge", "python-modules": ["taskbridge_airflow.operators"]}],
        "sensors": [{"integration-name": "taskbridge", "python-modules": ["taskbridge_airflow.sensors"]}],
        "triggers": [{"integration-name": "taskbridge", "python-modules": ["taskbridge_airflow.triggers"]}],
        "connection-types": [
            {
                "connection-type": "taskbridge",
                "hook-class-name": "taskbridge_airflow.hooks.TaskbridgeHook",
                "hook-name": "taskbridge",
                "conn-fields": {
                    "provider": {
                        "label": "Provider",
                        "description": "Name of the taskbridge provider, such as cloudconvert",
                        "schema": {"type": ["string", "null"]},
                    },
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port"],
                    "relabeling": {
                        "host": "Base URL",
                        "login": "Client id or user name",
                        "password": "API key, client secret or password",
                        "extra": "Other settings of the connection (JSON)",
                    },
                    "placeholders": {
                        "host": "leave empty for the vendor's own",
                        "extra": '{"poll": {"latency": 10}, "requests_per_second": 5}',
                    },
                },
            }
        ],
    }
