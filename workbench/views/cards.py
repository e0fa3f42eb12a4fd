"""The bundled backbones by their cards, and what each of them forgets. Reads card.json; loads no model.

A card is measured when a backbone is made, by `workbench.backbones.card`, which says how.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from workbench.data import BACKBONES
from workbench.views.listing import Listing, near, read_json
from workbench.views.theme import INK, Theme, empty_note, heading, template
from workbench.views.view import View

#: A share of fewer cases than this is drawn hollow.
FEW_CASES = 30

#: The part of Plasma that can be seen on a page, from few clauses to many.
SHADES: dict[Theme, tuple[float, float]] = {"light": (0.65, 0.0), "dark": (1.0, 0.35)}


class Cards(Listing):
    """The bundled backbones, as their cards describe them."""

    title, nothing = "Bundled backbones", "No backbone is bundled; `workbench pretrain` makes one."

    def __init__(self, folder: Path = BACKBONES, theme: Theme = "light") -> None:
        super().__init__(theme)
        self.folder = folder

    def data(self) -> pd.DataFrame:
        """One row a backbone.

        backbone, model, parameters, layers, width; tokens (read in training); met, met_held_out (share of all clauses
        of new stories that it meets, in known sentences and in held-out ones), guess (what guessing meets).
        """
        rows = [
            {
                "backbone": card["name"],
                "model": card["architecture"],
                "parameters": card["parameters"],
                "layers": card["recipe"]["layers"],
                "width": card["recipe"]["width"],
                "tokens": card["tokens"],
                "met": card["met"],
                "met_held_out": card["met_in_held_out_sentences"],
                "guess": card["chance"],
            }
            for card in _cards(self.folder)
        ]
        return pd.DataFrame(rows, columns=None if rows else ["backbone"])

    def shown(self) -> pd.DataFrame:
        """The facts that one chooses by."""
        rows = [
            (
                row.backbone,
                row.model,
                f"{row.parameters / 1e6:.1f} million",
                f"{row.layers} of width {row.width}",
                f"{row.tokens / 1e6:.0f} million",
                f"{row.met:.0%}",
                f"{row.met_held_out:.0%}",
            )
            for row in self.data().itertuples()
        ]
        heads = "backbone|model|parameters|layers|tokens read|clauses met|in held-out wording".split("|")
        return pd.DataFrame(rows, columns=heads)

    def links(self) -> dict[str, str]:
        """Each name leads to the whole card."""
        return {name: near(self.folder / name / "README.md") for name in self.data()["backbone"]}

    def note(self) -> str:
        """What guessing would meet."""
        guesses = sorted({f"{guess:.0%}" for guess in self.data().get("guess", [])})
        return (
            f"Of the clauses, a guess among the prompt's own values meets {' or '.join(guesses)}."
            if guesses
            else ""
        )


class Forgetting(View):
    """What each bundled backbone forgets: the share of a prompt's clauses that it meets, by their number and distance."""

    def __init__(
        self, folder: Path = BACKBONES, theme: Theme = "light", width: int = 900, height: int = 430
    ) -> None:
        self.folder, self.theme, self.width, self.height = folder, theme, width, height

    def data(self) -> pd.DataFrame:
        """One row a cell of a card's maps.

        backbone; fitting ("any", or "two": only where two of the prompt's own values still fit, so that a guess meets
        half); clauses (of the prompt); distance (tokens from the prompt's end, the name of a bin); met (a share); cases.
        """
        rows = [
            (card["name"], fitting, int(clauses), int(distance), met, int(cases))
            for card in _cards(self.folder)
            for fitting, key in (("any", "forgetting"), ("two", "forgetting_of_two"))
            for clauses, distance, met, cases in card[key]
            if cases
        ]
        return pd.DataFrame(rows, columns=["backbone", "fitting", "clauses", "distance", "met", "cases"])

    def figure(self) -> go.Figure:
        """One panel a backbone, one line a number of clauses; only where a guess meets half."""
        table, ink = self.data(), INK[self.theme]
        table = table[table["fitting"] == "two"]
        names, clauses = list(dict.fromkeys(table["backbone"])), sorted(set(table["clauses"]))
        figure = make_subplots(
            rows=1, cols=max(1, len(names)), shared_yaxes=True, subplot_titles=names, horizontal_spacing=0.04
        )
        figure.update_annotations(font={"size": 13, "color": ink["text"]})
        shades = sample_colorscale("Plasma", _steps(*SHADES[self.theme], len(clauses)))
        for column, name in enumerate(names, 1):
            for number, shade in zip(clauses, shades, strict=True):
                cells = table[(table["backbone"] == name) & (table["clauses"] == number)].sort_values(
                    "distance"
                )
                few = cells["cases"] < FEW_CASES
                figure.add_scatter(
                    x=cells["distance"],
                    y=cells["met"] * 100,
                    customdata=cells["cases"],
                    mode="lines+markers",
                    name=f"{number}",
                    legendgroup=f"{number}",
                    showlegend=column == 1,
                    line={"color": shade, "width": 2},
                    marker={"size": 7, "symbol": ["circle-open" if hollow else "circle" for hollow in few]},
                    hovertemplate=f"{number} clauses, about %{{x}} tokens later: %{{y:.0f}} % of %{{customdata}} met<extra></extra>",
                    row=1,
                    col=column,
                )
            figure.add_hline(y=50, line={"color": ink["quiet"], "width": 1, "dash": "dot"}, row=1, col=column)
        below = (
            "the share of clauses that a story still meets, where two values fit and a guess meets half (dotted); "
            f"hollow: fewer than {FEW_CASES} cases"
        )
        figure.update_layout(
            template=template(self.theme),
            title=heading("What each backbone forgets", below, self.theme),
            width=self.width,
            height=self.height,
            margin={"t": 128},
            legend={"title": {"text": "clauses in the prompt  ", "font": {"size": 11}}, "y": 1.1},
        )
        distances = sorted(set(table["distance"]))
        figure.update_xaxes(type="log", tickvals=distances, title_text="distance from the prompt (tokens)")
        figure.update_yaxes(range=[-4, 104], dtick=25)
        figure.update_yaxes(title_text="clauses met (%)", col=1)
        if not names:
            note = empty_note("No backbone is bundled;<br>`workbench pretrain` makes one.", self.theme)
            figure.update_layout(annotations=[note])
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure


def _cards(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.glob("*/card.json"))]


def _steps(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * i / max(1, count - 1) for i in range(count)]
