"""Windows: which images go through in which pass of which process."""

import itertools

import pytest

from bench.training.windows import Window, epoch_windows, share, some

GRID = list(itertools.product((1, 2, 3, 5, 7, 16, 17, 33, 101), (1, 2, 3, 8, 64), (1, 2, 5), (1, 2, 3, 7)))


def ranks(images: int, micro_batch: int, accumulate: int, processes: int) -> list[list[Window]]:
    return [list(epoch_windows(images, micro_batch, accumulate, processes, rank)) for rank in range(processes)]


def positions(window: Window) -> list[int]:
    return [position for start, stop in window.passes for position in range(start, stop)]


def test_every_image_is_in_exactly_one_pass_of_one_process() -> None:
    for case in GRID:
        everywhere = [position for windows in ranks(*case) for window in windows for position in positions(window)]
        assert sorted(everywhere) == list(range(case[0])), case


def test_all_processes_make_the_same_number_of_passes_in_the_same_windows() -> None:
    for case in GRID:
        by_rank = [
            [(window.index, window.images, len(window.passes)) for window in windows] for windows in ranks(*case)
        ]
        assert all(windows == by_rank[0] for windows in by_rank), case


def test_a_window_counts_its_images_over_all_processes() -> None:
    for case in GRID:
        for together in zip(*ranks(*case), strict=True):
            assert together[0].images == sum(len(positions(window)) for window in together), case


def test_only_the_last_window_is_short_and_only_in_its_last_pass() -> None:
    for images, micro_batch, accumulate, processes in GRID:
        effective = micro_batch * accumulate * processes
        for windows in ranks(images, micro_batch, accumulate, processes):
            assert [window.images for window in windows[:-1]] == [effective] * (len(windows) - 1)
            assert windows[-1].images == images - effective * (len(windows) - 1) > 0
            for window in windows:
                assert all(stop - start == micro_batch for start, stop in window.passes[:-1])
                assert 0 <= window.passes[-1][1] - window.passes[-1][0] <= micro_batch
                assert len(window.passes) == -(-window.images // (micro_batch * processes))


def test_the_shares_of_a_pass_differ_by_one_image_at_most_and_the_first_process_has_one() -> None:
    for case in GRID:
        for together in zip(*ranks(*case), strict=True):
            for passes in zip(*(window.passes for window in together), strict=True):
                sizes = [stop - start for start, stop in passes]
                assert max(sizes) - min(sizes) <= 1, case
                assert sizes == sorted(sizes, reverse=True), case
                assert sizes[0] >= 1, case


@pytest.mark.parametrize("split", [(24, 1, 1), (12, 2, 1), (12, 1, 2), (3, 4, 2), (4, 2, 3), (1, 8, 3)])
def test_windows_of_equal_effective_batch_hold_the_same_images_however_it_is_made_up(
    split: tuple[int, int, int],
) -> None:
    together = zip(*ranks(101, *split), strict=True)
    held = [sorted(position for window in windows for position in positions(window)) for windows in together]
    assert held == [list(range(start, min(start + 24, 101))) for start in range(0, 101, 24)]


def test_two_processes_share_seven_images_as_by_hand() -> None:
    assert ranks(7, micro_batch=2, accumulate=1, processes=2) == [
        [Window(0, 4, [(0, 2)]), Window(1, 3, [(4, 6)])],
        [Window(0, 4, [(2, 4)]), Window(1, 3, [(6, 7)])],
    ]


def test_with_more_processes_than_images_the_others_make_an_empty_pass() -> None:
    assert [windows[0].passes for windows in ranks(2, 8, 4, 3)] == [[(0, 1)], [(1, 2)], [(2, 2)]]


def test_share_by_hand() -> None:
    assert [share(10, 21, 4, rank) for rank in range(4)] == [(10, 13), (13, 16), (16, 19), (19, 21)]


def test_some_windows_are_the_first_ones_and_the_short_last_one() -> None:
    every = list(epoch_windows(100, 8, 2, 1, 0))
    assert [window.index for window in some(every, 3)] == [0, 1, 6]
    assert some(every, 3)[-1].images == 4
    assert [window.index for window in some(every, 1)] == [6]
    assert some(every, 7) == some(every, 8) == some(every, None) == every
