import torch

from secateur.masks import to_sparse


def test_the_product_with_a_sparse_weight_is_that_with_the_masked_one():
    weight, mask = torch.randn(5, 7).double(), torch.rand(5, 7) < 0.3
    x = torch.randn(7, 4).double()
    for layout in ("coo", "csr"):
        sparse = to_sparse({"w": weight}, {"w": mask}, layout)["w"]
        torch.testing.assert_close(sparse @ x, (weight * mask) @ x)
        assert sparse.dtype == torch.float64


def test_a_convolution_is_stored_by_filter_and_keeps_a_zero_that_is_not_masked():
    weight = torch.arange(24.0).view(2, 3, 2, 2)  # the first entry is zero
    mask = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    mask[0, 0, 0, 0] = mask[0, 2, 1, 0] = mask[1, 1, 0, 1] = True
    csr = to_sparse({"w": weight}, {"w": mask}, "csr")["w"]
    assert csr.shape == (2, 12)
    assert csr.crow_indices().tolist() == [0, 2, 3]
    assert csr.col_indices().tolist() == [0, 10, 5]
    assert csr.values().tolist() == [0.0, 10.0, 17.0]
    coo = to_sparse({"w": weight}, {"w": mask}, "coo")["w"]
    assert coo.indices().T.tolist() == [[0, 0, 0, 0], [0, 2, 1, 0], [1, 1, 0, 1]]
    assert torch.equal(coo.to_dense(), weight * mask)


def test_a_vector_is_a_column():
    csr = to_sparse(
        {"b": torch.arange(4.0)}, {"b": torch.tensor([False, True, False, True])}, "csr"
    )
    assert csr["b"].to_dense().tolist() == [[0.0], [1.0], [0.0], [3.0]]


def test_a_sparse_tensor_returns_the_masked_weight_even_when_nothing_is_kept():
    weight = {"w": torch.randn(3, 4)}
    for mask in (torch.zeros(3, 4, dtype=torch.bool), torch.rand(3, 4) < 0.5):
        csr = to_sparse(weight, {"w": mask}, "csr")["w"]
        assert torch.equal(csr.to_dense(), weight["w"] * mask)
        coo = to_sparse(weight, {"w": mask}, "coo")["w"]
        assert torch.equal(coo.coalesce().to_dense(), weight["w"] * mask)
