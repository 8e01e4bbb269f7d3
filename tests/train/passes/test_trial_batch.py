import numpy as np

from tunebook.data.encoded import Encoded
from tunebook.train.passes.trial_batch import part_of


def row(length, supervised_from=0, **others):
    mask = np.arange(length) >= supervised_from
    return Encoded(tokens=np.arange(length, dtype=np.int32), loss_mask=mask, **others)


def test_rows_are_taken_until_there_are_as_many_tokens_as_were_asked_for():
    assert [len(part.tokens) for part in part_of([row(5), row(7), row(9)], 10)] == [5, 5]
    assert [len(part.tokens) for part in part_of([row(5), row(7)], 5)] == [5]
    assert [len(part.tokens) for part in part_of([row(5)], 100)] == [5]
    assert [len(part.tokens) for part in part_of([row(5)], 0)] == [2]  # one to be predicted from the other


def test_a_row_that_is_cut_before_its_answer_has_something_to_predict():
    (part,) = part_of([row(50, supervised_from=40)], 10)
    assert part.supervised_tokens == 9
    (part,) = part_of([row(50, supervised_from=5)], 10)
    assert part.supervised_tokens == 5


def test_documents_of_a_packed_row_are_cut_with_it():
    (part,) = part_of([row(8, segments=np.repeat(np.arange(4, dtype=np.int32), 2))], 5)
    assert part.segments.tolist() == [0, 0, 1, 1, 2]


def test_no_row_is_cut_before_its_images_end():
    (part,) = part_of([row(50, images_end=30)], 10)
    assert len(part.tokens) == 32
