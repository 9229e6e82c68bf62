"""The kinds of places. Each is a function that builds a site from random numbers."""

from datasets.rendered.outdoors import park, square, street
from datasets.rendered.rooms import corridor, hall, room, shop

PLACES = {
    "street": street,
    "square": square,
    "park": park,
    "hall": hall,
    "shop": shop,
    "corridor": corridor,
    "room": room,
}
SHARES = (0.26, 0.22, 0.14, 0.14, 0.08, 0.08, 0.08)  # how often each kind is drawn
