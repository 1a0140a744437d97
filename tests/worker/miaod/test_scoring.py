import math

import pytest
import torch

from worker.miaod.scoring import anchor_discrepancy, heat_map, image_uncertainty


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 7, 40, 10_000])
def test_uncertainty_is_what_a_plain_loop_gives(k: int) -> None:
    f1, f2 = logits(1, 2, 40, 3), logits(2, 2, 40, 3)
    ours = image_uncertainty(anchor_discrepancy(f1, f2), k)
    for image in range(2):
        per_anchor = []
        for anchor in range(40):
            squares = [
                (1 / (1 + math.exp(-float(a))) - 1 / (1 + math.exp(-float(b)))) ** 2
                for a, b in zip(f1[image, anchor], f2[image, anchor], strict=True)
            ]
            per_anchor.append(sum(squares) / 3)
        largest = sorted(per_anchor, reverse=True)[:k]
        assert float(ours[image]) == pytest.approx(sum(largest) / len(largest), rel=1e-5)


def test_classifiers_that_agree_are_not_uncertain() -> None:
    same = logits(3, 1, 10, 2)
    assert float(image_uncertainty(anchor_discrepancy(same, same), 5)) == 0


def test_a_network_that_failed_gives_nan_not_a_number_that_looks_right() -> None:
    f1 = logits(1, 1, 10, 2)
    f1[0, 3, 1] = math.nan
    assert math.isnan(float(image_uncertainty(anchor_discrepancy(f1, logits(2, 1, 10, 2)), 3)))


def test_half_precision_logits_are_widened_first() -> None:
    f1, f2 = logits(1, 1, 10, 2).bfloat16(), logits(2, 1, 10, 2).bfloat16()
    assert torch.equal(anchor_discrepancy(f1, f2), anchor_discrepancy(f1.float(), f2.float()))


def test_classifiers_of_different_shape_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 5, 2\) and \(1, 5, 3\)"):
        anchor_discrepancy(torch.zeros(1, 5, 2), torch.zeros(1, 5, 3))


def test_a_mean_over_no_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        image_uncertainty(torch.zeros(1, 5), 0)


def test_the_heat_map_is_hottest_where_the_uncertain_anchor_sits() -> None:
    fine, coarse = torch.zeros(6 * 8 * 2), torch.zeros(3 * 4 * 2)
    fine[(2 * 8 + 5) * 2 + 1] = 0.5  # row 2, column 5, second anchor of the cell
    pixels = heat_map([fine, coarse], [(6, 8), (3, 4)], [8, 16], (45, 60))
    assert pixels.shape == (45, 60)
    assert divmod(int(pixels.argmax()), 60) == (2 * 8, 5 * 8)
    assert float(pixels.max()) == 0.5
    assert float(pixels[0, 0]) == 0


def test_the_heat_map_takes_the_hottest_level_and_covers_the_border() -> None:
    fine, coarse = torch.full((4 * 4,), 0.1), torch.zeros(2 * 2)
    coarse[3] = 0.4  # the last cell: everything below and right of it
    pixels = heat_map([fine, coarse], [(4, 4), (2, 2)], [8, 16], (30, 31))
    assert float(pixels[29, 30]) == pytest.approx(0.4)
    assert float(pixels[0, 0]) == pytest.approx(0.1)
