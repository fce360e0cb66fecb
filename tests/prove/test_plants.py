"""Every bug can be planted."""

from __future__ import annotations

import pytest

from tests.prove.plants import PLANTS, Plant


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_plants_texts_stand_once_in_their_files(plant: Plant) -> None:
    assert plant.problems() == []
