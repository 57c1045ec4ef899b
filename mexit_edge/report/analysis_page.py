"""The page of the analyses: one self-contained HTML file, no script, no request, both colour schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mexit_edge.report import words
from mexit_edge.report.analysis_sections import Analyses, analysis_sections
from mexit_edge.report.environment import load_template
from mexit_edge.report.loss_figures import barriers
from mexit_edge.report.tables import Table

TEMPLATE = "analysis.html.j2"
NOTES = (
    "Gradients: the network in inference mode on windows as they are; the weighted cross-entropy "
    "alone, without what a regime adds to it; weights of a phase that trains all exits.",
    "Connectivity: mean and variance of batch normalisation are taken anew at every point, from the windows.",
    "Landscape: one random plane of all there are; biases and normalisations stay as they are.",
    "Rank: of the centred output that a head reads, before its pooling.",
    "Information: all figures are estimates. A probe gives a lower bound, as good as the probe is. What "
    "nearest neighbours give belongs to its noise and to its few components; exits that differ by less than "
    "the error on the Gaussian channel are not told apart.",
)


def render_analysis_page(
    found: Analyses, *, about: str, conditions: Mapping[str, str], notes: Sequence[str] = ()
) -> str:
    """Return the whole page as HTML.

    Args:
        found: at least one analysis.
        about: which networks and whose windows, in a sentence or two.
        conditions: what was in force, by name.
        notes: beside those that hold always.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    table = Table(
        caption="Settings of this run.",
        columns=("setting", "value"),
        rows=tuple(conditions.items()),
        is_text=True,
    )
    return str(
        load_template(TEMPLATE).render(
            title=_title(found),
            about=about,
            headline=headline(found),
            sections=tuple(analysis_sections(found)),
            conditions=table,
            notes=(*notes, *NOTES),
        )
    )


def _title(found: Analyses) -> str:
    names = found.names
    return f"Analyses of {', '.join(names) if len(names) < 4 else f'{len(names)} networks'}"


def headline(found: Analyses) -> str:
    """Return what the analyses say, one sentence each."""
    said = []
    if found.gradients:
        last = found.gradients[-1]
        shares = last.share[0]
        if np.isfinite(shares).any():
            most = int(np.nanargmax(shares))
            said.append(
                f"{words.percent(float(shares[most]), 0)} of the squared gradient of {last.groups[0]} of "
                f"{found.names[-1]} come from {last.exits[most]}"
            )
    if found.connectivity is not None:
        said.append(f"barriers {barriers(found.connectivity)}")
    if found.rank:
        ranks = ", ".join(words.percent(float(one), 0) for one in found.rank[-1].share)
        said.append(f"the blocks of {found.names[-1]} have {ranks} of the rank they could have")
    if found.information:
        last_flow = found.information[-1]
        # One probe, named beforehand: the better of two would be chosen on those who judge it.
        first, final = (last_flow.linear[place].value for place in (0, -1))
        said.append(
            f"of H(Y) = {last_flow.label_entropy:.2f} nats, a linear probe finds {first:.2f} at the "
            f"first exit of {found.names[-1]} and {final:.2f} at the last"
        )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else "The loss around the network, on a random plane."
