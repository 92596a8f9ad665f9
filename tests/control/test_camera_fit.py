"""Images of a camera's size become images of the policy's: what is in them, where, and what is refused."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.camera_fit import CameraFit


def noise(rows, columns):
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.mark.parametrize("camera", [(0, 0), (200, 200)])
def test_an_image_of_the_policys_size_is_passed_on_as_it_is(camera):
    image = noise(200, 200)
    assert CameraFit("static", camera, (200, 200))(image) is image


@pytest.mark.parametrize(
    ("camera", "policy", "crop"),
    [
        ((480, 640), (200, 200), (0, 480, 80, 560)),
        ((640, 480), (200, 200), (80, 560, 0, 480)),
        ((720, 1280), (100, 200), (40, 680, 0, 1280)),
        ((240, 320), (120, 160), (0, 240, 0, 320)),
    ],
)
def test_the_crop_is_the_largest_centred_part_of_the_policys_aspect(camera, policy, crop):
    rows, columns = CameraFit("static", camera, policy).crop
    assert (rows.start, rows.stop, columns.start, columns.stop) == crop


def test_each_pixel_is_the_weighted_mean_of_what_is_around_it():
    """Weights fall evenly from the middle of a pixel to the middles of its neighbours: antialiased bilinear scaling."""
    image = noise(480, 640)
    fitted = CameraFit("static", (480, 640), (120, 120))(image)
    weights = np.maximum(1 - np.abs(np.arange(480) + 0.5 - 4 * (np.arange(120)[:, None] + 0.5)) / 4, 0)
    weights /= weights.sum(1, keepdims=True)
    means = np.einsum("ar,bc,rcd->abd", weights, weights, image[:, 80:560].astype(np.float64), optimize=True)
    assert fitted.shape == (120, 120, 3)
    assert fitted.dtype == np.uint8
    assert fitted.flags.writeable
    assert np.abs(fitted - means).max() <= 1.5


def test_a_pattern_survives_where_it_was():
    """Left red, right green, a blue square in the middle, and white outside the crop, which must not be seen."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :320], image[:, 320:] = (255, 0, 0), (0, 255, 0)
    image[216:264, 296:344] = (0, 0, 255)
    image[:, :80] = image[:, 560:] = 255
    fitted = CameraFit("static", (480, 640), (200, 200))(image)
    assert (fitted[:87, :98] == (255, 0, 0)).all()
    assert (fitted[:87, 102:] == (0, 255, 0)).all()
    assert (fitted[93:107, 93:107] == (0, 0, 255)).all()


def test_rows_with_padding_are_read_where_they_are():
    wide = noise(480, 700)
    fit = CameraFit("static", (480, 640), (200, 200))
    np.testing.assert_array_equal(fit(wide[:, :640]), fit(wide[:, :640].copy()))


@pytest.mark.parametrize("shape", [(200, 200, 3), (640, 480, 3), (480, 640, 4), (481, 640, 3)])
def test_another_size_is_refused(shape):
    with pytest.raises(ConfigError, match=r"\(480, 640, 3\)"):
        CameraFit("static", (480, 640), (200, 200))(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("camera", [(199, 640), (480, 199), (0, 480)])
def test_images_are_not_enlarged(camera):
    with pytest.raises(ConfigError, match=r"static camera .* at least the policy's, 200 and 200"):
        CameraFit("static", camera, (200, 200))
