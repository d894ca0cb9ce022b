import numpy as np
import pytest
from PIL import Image, ImageDraw

from common.keras_setup import keras
from common.saliency.heat import HeatMaps
from common.saliency.lite0 import FEATURES
from common.saliency.networks import SaliencyNetwork, saliency_network


@pytest.fixture(scope="module")
def contrast() -> SaliencyNetwork:
    return saliency_network("contrast")


def lesion(x: int, y: int, radius: int, size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A dark blot on skin with some noise."""
    rng = np.random.default_rng(x + y)
    skin = np.clip(rng.normal((214, 160, 140), 6, (size[1], size[0], 3)), 0, 255)
    picture = Image.fromarray(skin.astype(np.uint8))
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(picture).ellipse(box, fill=(90, 50, 40))
    return picture


def test_heat_is_where_the_lesion_is(contrast: SaliencyNetwork) -> None:
    for x, y in ((50, 40), (150, 110), (60, 110)):
        heat = contrast.heat(lesion(x, y, 22))
        assert heat.shape == (28, 28) and heat.min() >= 0 and heat.max() <= 1
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert abs((column + 0.5) / 28 * 200 - x) < 30 and abs((row + 0.5) / 28 * 150 - y) < 25


def test_the_same_picture_has_the_same_heat(contrast: SaliencyNetwork) -> None:
    one, other = lesion(80, 60, 30), lesion(120, 60, 20)
    first = contrast.heat(one)
    contrast.heat(other)
    np.testing.assert_array_equal(contrast.heat(one), first)


def test_grad_cam_is_the_class_map_where_only_pooling_and_a_dense_layer_follow() -> None:
    """Then its weights are the class's own (arXiv 1610.02391, section 3.1)."""
    network = saliency_network("grad-cam")
    found = network.heat(lesion(80, 60, 30))
    from common.saliency.lite0 import load_lite0

    model = load_lite0()
    small = lesion(80, 60, 30).resize((224, 224), Image.Resampling.BICUBIC)
    seen = network.normalized(np.asarray(small)[None])
    both = keras.Model(model.input, [model.get_layer(FEATURES).output, model.output])
    features, logits = (np.asarray(values) for values in both(seen, training=False))
    own = model.get_layer("fc").get_weights()[0][:, logits[0].argmax()]
    expected = np.maximum((features[0] * own).sum(axis=-1), 0) / 49
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_what_is_the_same_everywhere_has_no_heat() -> None:
    image = keras.Input((8, 8, 3))
    fine = keras.layers.Activation("linear", name="fine")(image)
    model = keras.Model(image, keras.layers.AveragePooling2D(2, name="coarse")(fine))
    maps = HeatMaps(model, ("fine", "coarse"), "contrast")
    assert not maps.of(np.full((1, 8, 8, 3), 0.4, np.float32)).any()
    spot = np.full((1, 8, 8, 3), 0.4, np.float32)
    spot[0, 2:4, 4:6] = (5, 0, 0)
    heat = maps.of(spot)[0]
    assert heat[2:4, 4:6].min() > 0.4 and heat[:2, :3].max() < 0.1
