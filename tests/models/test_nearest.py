"""Which name a misspelt one meant."""

from models.nearest import nearest, perhaps

KNOWN = ("resnet20", "resnet20_accumulation", "dropout", "plan", "plot")


def test_a_name_that_goes_on_comes_before_one_that_is_spelt_alike() -> None:
    assert nearest("resnet20_acc", KNOWN) == ["resnet20_accumulation"]
    assert nearest("pl", KNOWN, 5) == ["plan", "plot"]
    assert nearest("paln", KNOWN) == ["plan"]


def test_what_is_like_none_has_no_nearest_one_unless_one_is_asked_for_anyway() -> None:
    assert nearest("zzz", KNOWN) == nearest("", KNOWN) == []
    assert len(nearest("zzz", KNOWN, cutoff=0)) == 1


def test_it_is_a_part_of_a_sentence() -> None:
    assert perhaps("drpout", KNOWN) == "; perhaps you meant dropout"
    assert perhaps("drpout", KNOWN, "--") == "; perhaps you meant --dropout"
    assert perhaps("zzz", KNOWN) == ""
