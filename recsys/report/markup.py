"""HTML that cannot be broken by what is put into it: text is escaped, only what ``tag`` made is not.

Nor can text change the order in which other text is read, or hide: what is not seen is written out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from secagg.printable import printable


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


VOID = {"meta", "col", "br"}


def tag(name: str, /, *children: str, **attributes: str | int) -> Html:
    """An element. A trailing ``_`` in the name of an attribute is dropped, others become hyphens.

    >>> print(tag("p", "1 < 2 ", tag("b", "&"), class_="x", aria_label='">'))
    <p class="x" aria-label="&quot;&gt;">1 &lt; 2 <b>&amp;</b></p>
    """
    inner = "".join(map(_safe, children))
    words = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{_safe(str(value))}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{words}>" if name in VOID else f"<{name}{words}>{inner}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    return Html(_safe(between).join(map(_safe, parts)))


def _safe(part: str) -> str:
    return part if isinstance(part, Html) else escape(printable(part))


@dataclass(frozen=True, slots=True)
class Group:
    """Columns under one heading; an empty one for columns that need none."""

    heading: str
    columns: Sequence[str]


def table(
    caption: str, groups: Sequence[Group], rows: Sequence[Sequence[str]], *, words: Collection[int] = (0,)
) -> Html:
    """Rows of cells, the first of them the row's heading, in a container that scrolls by itself when it is too wide.

    Columns in ``words`` hold text, the others figures. A table without rows is a sentence that says so.
    """
    if not rows:
        return tag("p", f"{caption}: none.")
    groups = [group for group in groups if group.columns]
    names = [name for group in groups for name in group.columns]
    kinds = [{} if place in words else {"class_": "figure"} for place in range(len(names))]
    head = [tag("tr", *(tag("th", name, scope="col", **kind) for name, kind in zip(names, kinds, strict=True)))]
    spans: list[Html] = []
    if any(group.heading for group in groups):
        spans = [tag("colgroup", span=len(group.columns)) for group in groups]
        head.insert(0, tag("tr", *map(_over, groups)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", **kinds[0]),
            *(tag("td", cell, **kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), *spans, tag("thead", *head), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _over(group: Group) -> Html:
    if not group.heading:
        return tag("td", colspan=len(group.columns))
    return tag("th", group.heading, scope="colgroup", colspan=len(group.columns))


def prose(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table of sentences. On a phone its cells stand below each other, each with the name of its column."""
    head = tag("tr", *(tag("th", name, scope="col") for name in columns))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, data_column=name) for name, cell in zip(columns[1:], row[1:], strict=True)),
        )
        for row in rows
    ]
    return tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_="prose")


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Named facts."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")
