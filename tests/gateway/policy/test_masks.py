"""One mask for one text throughout a call, and back only where the rule says so."""

import re

import pytest

from gateway.policy.masks import MASK_PATTERN, Masks


def mask(masks: Masks, original: str, *, label: str = "EMAIL", restore: bool = False) -> str:
    return masks.mask(label, original, alike=original.casefold(), restore=restore)


def test_masks_are_counted_by_label_in_order_of_appearance() -> None:
    masks = Masks()
    assert [mask(masks, "a@b.example"), mask(masks, "c@d.example")] == ["[EMAIL_1]", "[EMAIL_2]"]
    assert mask(masks, "a@b.example", label="SECRET") == "[SECRET_1]"


def test_the_same_text_has_the_same_mask() -> None:
    masks = Masks()
    assert mask(masks, "A@B.example") == mask(masks, "a@b.example") == "[EMAIL_1]"


@pytest.mark.parametrize("other", ["090 1234 5678", "(090)1234-5678", "090ー1234ー5678", "09012345678", "090.1234.5678"])
def test_separators_make_no_other_text(other: str) -> None:
    masks = Masks()
    assert mask(masks, "090-1234-5678", label="PHONE") == mask(masks, other, label="PHONE")


def test_calls_share_nothing() -> None:
    mask(Masks(), "a@b.example")
    assert mask(Masks(), "c@d.example") == "[EMAIL_1]"


def test_only_what_is_to_be_restored_is_kept() -> None:
    masks = Masks()
    mask(masks, "a@b.example")
    assert not masks.restores
    assert masks.original("[EMAIL_1]") is None
    mask(masks, "c@d.example", restore=True)
    assert masks.restores
    assert masks.original("[EMAIL_2]") == "c@d.example"


def test_what_was_written_first_is_what_comes_back() -> None:
    masks = Masks()
    mask(masks, "A@b.example", restore=True)
    mask(masks, "a@B.example", restore=True)
    assert masks.original("[EMAIL_1]") == "A@b.example"


def test_a_model_that_changes_the_case_of_a_mask_gets_it_back() -> None:
    masks = Masks()
    mask(masks, "a@b.example", restore=True)
    assert masks.original("[email_1]") == masks.original("[Email_1]") == "a@b.example"


@pytest.mark.parametrize("label", ["A", "EMAIL", "MY_NUMBER", "X" + "Y" * 30])
def test_every_mask_is_found_in_an_answer(label: str) -> None:
    assert re.fullmatch(MASK_PATTERN, mask(Masks(), "text", label=label).casefold())


def test_its_text_is_in_no_repr() -> None:
    masks = Masks()
    mask(masks, "a@b.example", restore=True)
    assert "a@b" not in repr(masks)
