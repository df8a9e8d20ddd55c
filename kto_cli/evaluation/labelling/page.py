"""The page: one HTML text without anything from elsewhere."""

from __future__ import annotations

import jinja2


def page(nonce: str, token: str) -> str:
    """HTML with its style and script, which run by the nonce alone. It holds no text of an item: the script puts those
    in as text."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("kto_cli.evaluation.labelling", ""),
                jinja2.PackageLoader("kto_cli.evaluation.report", ""),
            ]
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(nonce=nonce, token=token)
