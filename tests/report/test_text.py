import pytest

from secateur.report import _text


def spaced(text):
    """What a reader sees: spaces that do not break look like others."""
    return text.replace(_text.NBSP, " ").replace(_text.MINUS, "-").replace(_text.TIMES, "x")


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (_text.percent, 0.41628, "41.6 %"),
        (_text.percent, 1, "100.0 %"),
        (_text.percent, None, _text.UNKNOWN),
        (_text.count, 0, "0"),
        (_text.count, 950, "950"),
        (_text.count, 999_499, "999 k"),
        (_text.count, 999_600, "1.00 M"),
        (_text.count, 41_234_567, "41.2 M"),
        (_text.count, 4.1e12, "4.10 T"),
        (_text.seconds, 0.0, "0 s"),
        (_text.seconds, 4.126, "4.13 s"),
        (_text.seconds, 59.97, "1 min 0 s"),
        (_text.seconds, 92.4, "1 min 32 s"),
        (_text.seconds, 3599.7, "1 h 0 min"),
        (_text.seconds, 9000, "2 h 30 min"),
        (_text.milliseconds, 0.00214, "2.14 ms"),
        (_text.milliseconds, 0.0412, "41.2 ms"),
        (_text.number, -0.25, "-0.25"),
        (_text.number, None, _text.UNKNOWN),
    ],
)
def test_numbers_read_as_a_person_writes_them(write, value, text):
    assert spaced(write(value)) == text


@pytest.mark.parametrize(
    ("share", "other", "text"),
    [
        (0.9733, 0.9778, "-0.5 points"),  # 97.3 and 97.8 stand on the page
        (0.98, 0.97, "+1.0 points"),
        (0.97001, 0.97, "no difference"),
    ],
)
def test_points_are_the_difference_of_the_figures_shown(share, other, text):
    assert spaced(_text.points(share, other)) == text


def test_how_many_times_as_fast_is_before_over_after():
    assert spaced(_text.times(0.003, 0.002)) == "1.50x"


@pytest.mark.parametrize(
    ("name", "shortened"),
    [
        ("conv1", "conv1"),
        ("stage1.residual_blocks.0.downsample", "s1.r.0.downsample"),
        ("encoder.layers.encoder_layer_11.mlp.0", "e.l.e11.mlp.0"),
        ("features.denseblock3.denselayer12.conv1", "f.d3.denselayer12.conv1"),
        ("vision.encoder.stage2.residual_blocks.7.conv1", "v.e.s2.r.7.conv1"),
        ("a_single_word_that_is_far_too_long", "…rd_that_is_far_too_long"),
    ],
)
def test_a_long_path_loses_letters_from_its_left_and_keeps_its_numbers(name, shortened):
    assert _text.short(name, 24) == shortened
    assert len(shortened) <= 24


def test_lists_and_plurals_read_as_sentences():
    assert _text.joined(["a"]) == "a"
    assert _text.joined(["a", "b", "c"]) == "a, b and c"
    assert _text.plural(1, "layer") == "1 layer"
    assert _text.plural(2, "family", "families") == "2 families"


def test_names_lose_what_plotly_would_read_as_tags():
    assert _text.plain("<b>a & b</b>") == "&lt;b&gt;a &amp; b&lt;/b&gt;"
