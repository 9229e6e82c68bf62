"""Search pictures and videos for a person.

The query is a picture with a box (--box), or with the number of one of the people found in it
(--person). If the picture shows several people and neither option is given, the program writes the
picture with their numbers and ends. --query may be given several times, each time followed by its
own --box or --person. --join chooses how similarities to several queries are combined: by their
mean (several views of one person) or by their maximum (several people).

The output folder contains matches.json, index.html, contact_sheet.jpg and a drawing of each
picture. A later search with the same folder replaces these files and keeps all others.
"""

from utils.early import leave_on_signals


def main() -> None:
    from engine.search.program import run

    run(__doc__)


if __name__ == "__main__":
    leave_on_signals()

    from utils.errors import run_main

    run_main(main)
