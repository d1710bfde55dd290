"""Which encodings an algorithm and its codes allow, and the limits of tables."""

import numpy as np
import pytest

from sbkit import integers
from sbkit.conv import QuantizedWeight
from sbkit.encodings import ENCODINGS_OF, check_encoding, largest_group, table_alphabet
from sbkit.way import ENCODINGS, KERNELS, MOST_CHANNELS, MOST_PATTERNS

BINARY = np.array([[1, -1], [1, 1]], np.int8).reshape(2, 2, 1, 1)
TERNARY = np.array([[1, -1], [1, 0]], np.int8).reshape(2, 2, 1, 1)
SIGNED_BINARY = np.array([[1, 0], [-1, -1]], np.int8).reshape(2, 2, 1, 1)
TWO_SCALES = QuantizedWeight(BINARY, negative_scale=np.full(2, 3))


def test_every_algorithm_has_its_encodings():
    assert {*ENCODINGS_OF, *integers.ENCODINGS_OF} == {*KERNELS}
    for algorithm, encodings in ENCODINGS_OF.items():
        for encoding in encodings:
            check_encoding(algorithm, encoding, QuantizedWeight(BINARY))
    assert ENCODINGS_OF["table"] == tuple(ENCODINGS)


@pytest.mark.parametrize(
    "algorithm,encoding,weight,message",
    [
        ("winograd", "two_group", QuantizedWeight(BINARY), "algorithm = 'winograd'; allowed: dense, sparse, table"),
        ("table", "xnor", QuantizedWeight(BINARY), "encoding = 'xnor'; allowed: two_group, rewritten, signed, code"),
        ("dense", "rewritten", QuantizedWeight(BINARY), "encoding of dense = 'rewritten'; allowed: two_group"),
        ("dataflow", "signed", QuantizedWeight(BINARY), "encoding of dataflow = 'signed'; allowed: two_group, rewr"),
        ("sparse", "rewritten", QuantizedWeight(TERNARY), "'rewritten' with codes that hold 0; allowed: every code"),
        ("table", "signed", TWO_SCALES, "'signed' with two scales; allowed: scale equal to negative_scale"),
        ("table", "rewritten", TWO_SCALES, "'rewritten' with two scales"),
        ("table", "rewritten", QuantizedWeight(BINARY, [1, -1e38]), "with a scale of .* allowed: up to 8.51e"),
    ],
)
def test_what_does_not_fit_is_refused(algorithm, encoding, weight, message):
    with pytest.raises(ValueError, match=message):
        check_encoding(algorithm, encoding, weight)


@pytest.mark.parametrize(
    "codes,alphabet,most", [(BINARY, (-1, 1), 10), (TERNARY, (-1, 0, 1), 6), (SIGNED_BINARY, (0, 1), 10)]
)
def test_the_largest_table_follows_from_the_alphabet(codes, alphabet, most):
    assert table_alphabet(codes) == (0, 1) and table_alphabet(codes, "signed") == alphabet
    assert largest_group(codes) == 10 and largest_group(codes, "signed") == most
    assert largest_group(codes, "codebook") == MOST_CHANNELS["codebook"]
    assert len(alphabet) ** most <= MOST_PATTERNS * (1 if 0 not in alphabet or len(alphabet) == 2 else 2)
