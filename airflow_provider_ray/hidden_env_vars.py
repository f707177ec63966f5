"""A rendered runtime_env without the values of its env_vars, wherever Airflow shows or stores it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context
    from jinja2 import Environment


class HiddenEnvVars(BaseOperator):
    """An operator with a templated ``runtime_env``, which it wraps once it is rendered."""

    runtime_env: Mapping[str, Any] | None

    # A mapped operator calls this one and not render_template_fields.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Environment, seen_oids: set[int]
    ) -> None:
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self and isinstance(self.runtime_env, Mapping):
            self.runtime_env = HiddenRuntimeEnv(self.runtime_env)


class HiddenRuntimeEnv(UserDict[str, Any]):
    """A rendered runtime_env that keeps the values of env_vars to itself when Airflow stores or shows it."""

    def serialize(self) -> dict[str, Any]:
        hidden = dict(self.data)
        if isinstance(env_vars := hidden.get("env_vars"), Mapping):
            hidden["env_vars"] = dict.fromkeys(env_vars, "***")
        return hidden

    def __repr__(self) -> str:
        return repr(self.serialize())
