"""`make mutants` can make every mutation, and each names a test that exists."""

from __future__ import annotations

import pytest

from tests.mutants.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutations_text_stands_once_in_its_file_and_its_test_exists(mutation: Mutation) -> None:
    assert mutation.problem() == ""
    file, _, test = mutation.test.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text()


def test_a_mutation_whose_text_is_gone_is_a_problem() -> None:
    gone = Mutation("something", "Makefile", "a text that stands nowhere", "", "tests/unit/test_mutations.py::test")
    assert "stands 0 times in Makefile" in gone.problem()
