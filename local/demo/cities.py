"""The demo's cities: the largest ones of India that have a name people know, from GeoNames."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

from services.catalog.domain.venues import City, Location

FILE = Path(__file__).parent / "data" / "cities.csv"
CHOSEN = (
    "Mumbai",
    "Delhi",
    "Bengaluru",
    "Hyderabad",
    "Ahmedabad",
    "Chennai",
    "Kolkata",
    "Surat",
    "Pune",
    "Jaipur",
    "Kanpur",
    "Lucknow",
    "Nagpur",
    "Coimbatore",
    "Indore",
    "Thāne",
    "Vadodara",
    "Bhopal",
    "Patna",
    "Nashik",
    "Madurai",
    "Visakhapatnam",
    "Chandigarh",
    "Kochi",
)


def slug(name: str) -> str:
    """``Thāne`` -> ``thane``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return plain.lower().replace(" ", "-")


def plain(name: str) -> str:
    """``Thāne`` -> ``Thane``, as it is written on tickets."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()


def cities() -> list[City]:
    """The chosen cities, the largest first. A city's region is its line in the file, so adding one moves no other."""
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = [(line, row) for line, row in enumerate(csv.DictReader(file), start=1) if row["name"] in CHOSEN]
    return [
        City(
            city_id=slug(row["name"]),
            name=plain(row["name"]),
            location=Location(float(row["latitude"]), float(row["longitude"])),
            time_zone=row["timezone"],
            population=int(row["population"]),
            region=line,
        )
        for line, row in rows
    ]
