"""Where the images of a prompt are, and how ragged rows are packed."""

import torch

from llava.model.cuts import cut_again
from llava.model.layout import Layout
from llava.model.masks import prompt_padding
from llava.model.stages import PromptState, Stage, pack, take

IMG = 99
IDS = torch.tensor([[0, 0, 1, IMG, IMG, 2, IMG, IMG, IMG, IMG, 3, 4], [5, IMG, IMG, 6, 7, 8, 9, 1, 2, 3, 4, 5]])
REAL = torch.tensor([[0] * 2 + [1] * 10, [1] * 12]).bool()


def read(lengths):
    return Layout.read(IDS, REAL, (IMG,), lengths)


class TestLayout:
    def test_images_of_one_length(self):
        layout = read(2)
        assert layout.visual == [[2, 2, 2], [2]]
        assert layout.image[0].tolist() == [-1, -1, -1, 0, 0, -1, 1, 1, 2, 2, -1, -1]
        assert layout.lengths == [10, 12]
        assert layout.text_after == [2, 9]
        assert layout.members(False) == [(0, 0), (0, 1), (0, 2), (1, 0)]
        assert layout.members(True) == [(0, -1), (1, -1)]
        assert layout.counts(True) == [6, 2]

    def test_images_of_given_lengths(self):
        assert read([2, 1, 3, 2]).visual == [[2, 1, 3], [2]]

    def test_every_run_is_an_image_when_nothing_is_known(self):
        assert read(None).visual == [[2, 4], [2]]
        assert read([5, 5]).visual == [[2, 4], [2]]  # lengths that do not add up are not used

    def test_padding_ids_that_look_like_images_do_not_count(self):
        ids = IDS.clone()
        ids[0, :2] = IMG
        assert Layout.read(ids, REAL, (IMG,), 2).visual == [[2, 2, 2], [2]]

    def test_seeds_depend_on_the_sample_alone(self):
        alone = Layout.read(IDS[:1, 2:], None, (IMG,), 2)
        assert alone.seeds(False) == read(2).seeds(False)[:3]
        assert len(set(read(2).seeds(False))) == 4

    def test_groups(self):
        layout = read(2)
        groups = layout.groups(False, layout.image, layout.real, layout.counts(False), layer=2)
        assert groups.columns.tolist() == [[3, 4], [6, 7], [8, 9], [1, 2]]
        assert groups.first.tolist() == [2, 2, 2, 0]
        assert groups.text_columns[0, :2].tolist() == [10, 11]
        assert groups.text_valid.sum(1).tolist() == [2, 2, 2, 9]
        together = layout.groups(True, layout.image, layout.real, layout.counts(True), layer=2)
        assert together.columns[0].tolist() == [3, 4, 6, 7, 8, 9]
        assert together.valid.sum(1).tolist() == [6, 2]
        kept = torch.tensor([[True, False], [False, False], [True, True], [False, True]])
        assert groups.scatter(kept, 2, 12).nonzero().tolist() == [[0, 3], [0, 8], [0, 9], [1, 2]]


class TestPack:
    def test_ragged_rows_end_together(self):
        keep = torch.tensor([[1, 0, 1, 0, 1], [0, 1, 0, 0, 0]]).bool()
        columns, valid = pack(keep, [3, 1])
        assert columns[0].tolist() == [0, 2, 4]
        assert columns[1, -1] == 1
        assert valid.tolist() == [[True] * 3, [False, False, True]]

    def test_equal_rows_need_no_mask(self):
        columns, valid = pack(torch.tensor([[True, False], [False, True]]), [1, 1])
        assert columns.tolist() == [[0], [1]] and valid is None

    def test_take_expands_shared_tables(self):
        table = torch.arange(10.0).view(1, 5, 2)
        columns = torch.tensor([[0, 4], [1, 2]])
        assert take(table, columns).tolist() == [[[0, 1], [8, 9]], [[2, 3], [4, 5]]]

    def test_a_cut_made_again(self):
        state, columns = PromptState(None), torch.arange(6.0).expand(2, 6)[..., None]
        index, valid = torch.tensor([[0, 2, 3, 5], [1, 1, 4, 5]]), torch.tensor([[True] * 4, [False, True, True, True]])
        first, then = Stage(1, index, valid, source=index), torch.tensor([[2, 5], [4, 5]])
        left = cut_again(state, first, columns, 6)
        assert torch.equal(left[..., 0][valid], index.float()[valid])
        assert torch.equal(cut_again(state, Stage(3, then, None, source=then), left, 6)[..., 0], then.float())


def test_padding_is_read_from_any_mask():
    flat = torch.tensor([[0, 1, 1], [1, 1, 1]])
    causal = torch.ones(3, 3, dtype=torch.bool).tril() & flat.bool()[:, None, None, :]
    additive = torch.where(causal, 0.0, torch.finfo(torch.float32).min)
    roomy = torch.nn.functional.pad(causal, (0, 4))  # a static cache is longer than the prompt
    for mask in (flat, causal, additive, roomy, {"full_attention": causal}):
        assert torch.equal(prompt_padding(mask, 3), flat.bool())
    assert prompt_padding(None, 3) is None


class TestSeveralKinds:
    """Images and videos in one prompt: placeholders and lengths of their own."""

    VID = 98
    IDS = torch.tensor([[1, VID, VID, 2, VID, 3, IMG, IMG, IMG, 4], [IMG, 1, 2, VID, VID, VID, 3, IMG, IMG, 4]])

    def read(self, images, videos):
        real = torch.ones_like(self.IDS, dtype=torch.bool)
        return Layout.read(self.IDS, real, (IMG, self.VID), {IMG: images, self.VID: videos})

    def test_numbers_follow_the_order_of_the_prompt(self):
        layout = self.read([2, 1, 1, 2], [3, 3])
        assert layout.image[0].tolist() == [-1, 0, 0, -1, 0, -1, 1, 1, 2, -1]
        assert layout.image[1].tolist() == [0, -1, -1, 1, 1, 1, -1, 2, 2, -1]
        assert layout.visual == [[3, 2, 1], [1, 3, 2]]

    def test_every_run_where_nothing_is_known(self):
        assert self.read(None, 3).visual == [[3, 3], [1, 3, 2]]
        assert self.read(None, None).visual == [[2, 1, 3], [1, 3, 2]]
