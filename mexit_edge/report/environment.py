"""The pages' templates, opened so that what users name cannot break out of its place."""

from __future__ import annotations

from typing import Any

from mexit_edge.errors import MissingExtraError


def load_template(name: str) -> Any:
    """Return a template of this room.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    # Class names, settings and notes come from users: everything is escaped, and a misspelt name is an error.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mexit_edge.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
