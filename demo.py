"""Search pictures and videos for a person: everyone in them is compared with the query, and the
most similar are drawn.

The query is a picture and a box in it, or the number of one of its people, who are found and drawn
numbered where there are several. It may be given several times, each with a --box or --person of
its own after it. --join says what a similarity to several queries is: their mean (several views of
one person) or their largest (several people).

OUT gets matches.json, index.html, contact_sheet.jpg and a drawn picture for each scene.
"""

from utils.early import leave_on_signals


def main() -> None:
    from engine.search.program import run

    run(__doc__)


if __name__ == "__main__":
    leave_on_signals()

    from utils.errors import run_main

    run_main(main)
