"""Words that not every reader of a report knows: each is explained once, and linked to where it stands first.

A link is reached by a keyboard and by a finger, which the text that appears below a mouse is not.
"""

from __future__ import annotations

import re

from recsys.report.markup import Html, join, tag

TERMS = {
    "epsilon": "Whatever was seen is at most e to the power of epsilon times as likely in one of two worlds "
    "that differ in one unit as in the other. 0 is perfect privacy, 1 is a common aim; at 8 little is excluded in the "
    "worst case.",
    "delta": "The probability with which the bound by epsilon may fail. It should be far below one in the number of "
    "users.",
    "local noise": "Each client adds noise by itself before anything leaves it, so nobody else need be trusted.",
    "distributed noise": "Each client adds a share of the noise, and only the secure sum has all of it. So the promise "
    "needs the secure sum, and clients that do add their share.",
    "secure sum": "A protocol by which a server learns the sum of what clients send, and nothing else of it.",
    "silos": "Clients with the data of many users each, such as shops or hospitals.",
    "survivors": "The clients whose vectors are in a sum: those that did not fall silent before they had sent theirs.",
    "colluding": "Working together with the server, and telling it all they know.",
    "ledger": "The signed record of what a privacy budget was spent on. Anybody can compute it again.",
    "HR@10": "Hit rate: the share of users for whom the item that was held out is among the first ten recommended.",
    "NDCG@10": "Like the hit rate, but a hit counts more the further ahead it stands: 1 in the first place, 0.29 in "
    "the tenth.",
    "full ranking": "The held-out item competes with all items that are new to the user. Figures are small, and models "
    "can be compared by them.",
    "99 negatives": "The held-out item competes with 99 items drawn at random, as in many papers. Figures are large, "
    "and can rank models otherwise.",
    "under the mask": "As a part of the vector that is summed securely: only the sum over clients is known.",
}


def linked(text: str) -> Html:
    """A text whose words link to their explanations, each where it stands first.

    >>> print(linked("epsilon & delta, epsilon"))
    <a class="term" href="#term-epsilon">epsilon</a> &amp; <a class="term" href="#term-delta">delta</a>, epsilon
    """
    seen: set[str] = set()

    def link(found: re.Match[str]) -> str:
        word = found[0]
        if word in seen:
            return word
        seen.add(word)
        return tag("a", word, class_="term", href=f"#{_place(word)}")

    return Html(_WORDS.sub(link, join([text])))


def explained() -> Html:
    """All of them, to be linked to."""
    pairs = (tag("div", tag("dt", word), tag("dd", said), id=_place(word)) for word, said in TERMS.items())
    return tag("dl", *pairs, class_="facts")


def _place(word: str) -> str:
    return f"term-{re.sub('[^a-z0-9]+', '-', word.lower())}"


_WORDS = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(TERMS, key=len, reverse=True)))})(?![\w-])")
