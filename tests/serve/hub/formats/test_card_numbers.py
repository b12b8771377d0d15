"""Numbers in the words of model cards, written as the published cards and the blog post's code are."""

import time

import pytest

from serve.hub.formats.card_numbers import CardNumbers, read_card_numbers

BLOG = """TARGET_RETURN = 3.6 # This was normalized during training
MAX_EPISODE_LENGTH = 1000
scale = 1000.0

state_mean = np.array(
 [1.3490015, -0.11208222, -5.5e-05,])

state_std = np.array(
 [0.15980862, 0.0446214, 0.14307782,])

state_mean = torch.from_numpy(state_mean)
state_std = torch.from_numpy(state_std)
target_return = torch.tensor(TARGET_RETURN).float().reshape(1, 1)
pred_return = target_return[0, -1] - (reward / scale)
"""
MEAN, STD = (1.3490015, -0.11208222, -5.5e-05), (0.15980862, 0.0446214, 0.14307782)


def test_the_blog_posts_code() -> None:
    assert read_card_numbers(BLOG, 3) == CardNumbers(MEAN, STD, 1000.0, 3600.0)
    in_one_line = " ".join(BLOG.split())
    assert read_card_numbers(in_one_line, 3) == CardNumbers(MEAN, STD, 1000.0, 3600.0)
    assert read_card_numbers(BLOG, 4) == CardNumbers(None, None, 1000.0, 3600.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "mean = [ 1.5,  -2. , 3e-1]\n\nstd = [ 1 2\n .5 ]",
            CardNumbers((1.5, -2.0, 0.3), (1.0, 2.0, 0.5), None, None),
        ),
        ('"state_mean": [1, 2, 3], "state_std": [4, 5, 6]', CardNumbers((1, 2, 3), (4, 5, 6), None, None)),
        ("Standard deviation of states: [4, 5, 6]", CardNumbers(None, (4, 5, 6), None, None)),
        ("The mean and std of states are [1, 2, 3] and [4, 5, 6]", CardNumbers(None, None, None, None)),
        ("mean reward [9] and state mean [1, 2, 3]", CardNumbers((1, 2, 3), None, None, None)),
        ("mean = [1, 2, ..., 3], std = [1, two, 3]", CardNumbers(None, None, None, None)),
        ("mean = [__import__('os'), 2, 3]", CardNumbers(None, None, None, None)),
        ("demeaned [1, 2, 3]", CardNumbers(None, None, None, None)),
        ("**scale**: 1000\n`target_return`: 3600", CardNumbers(None, None, 1000.0, 3600.0)),
        ("SCALE = 1e3; TARGET_RETURN = 3600 / SCALE  # normalized", CardNumbers(None, None, 1000.0, 3600.0)),
        ("target return: -200", CardNumbers(None, None, None, -200.0)),
        ("TARGET_RETURN = 3.6 # normalized", CardNumbers(None, None, None, None)),
        ("scale = 0, target_return = 1e999", CardNumbers(None, None, None, None)),
        ("grayscale 3, target_return[0, -1]", CardNumbers(None, None, None, None)),
    ],
)
def test_words_and_numbers(text: str, expected: CardNumbers) -> None:
    assert read_card_numbers(text, 3) == expected


@pytest.mark.parametrize(
    "text", ["mean [", "mean [1 ", "1", "target_return = 1", "mean mean ", "mean = [1" + "1" * 10**5]
)
def test_a_card_of_nothing_is_read_in_no_time(text: str) -> None:
    started = time.process_time()
    read_card_numbers(text * (2**20 // len(text)) + "]", 1)
    assert time.process_time() - started < 5
