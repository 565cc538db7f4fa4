import io
import itertools
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from synscale_jax.data import DataNotAvailable
from synscale_jax.data import imagenet as streams
from synscale_jax.data.imagenet import Example, Spread, open_folder, open_imagenet

SIZE = 16


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def plain(color, height=24, width=20):
    return np.full((height, width, 3), color, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of plain images, each of its own brightness: red and green, 5 + 3 each."""
    root = tmp_path_factory.mktemp("images") / "tiny"
    for split, count in (("train", 5), ("val", 3)):
        for channel, name in enumerate(("a_red", "b_green")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                color = [0, 0, 0]
                color[channel] = 100 + 30 * number
                suffix = ".JPEG" if number else ".jpg"
                (root / split / name / f"{number}{suffix}").write_bytes(jpeg(plain(color)))
    (root / "train" / "a_red" / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def data(folder):
    return open_folder(folder)


def take(batches, count):
    return list(itertools.islice(batches, count))


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)
        for a, b in zip(first, second, strict=True)
    )


def test_a_folder_has_its_classes_by_name(data, folder):
    assert data.name == "tiny" and data.class_names == ("a_red", "b_green")
    assert (len(data.train), len(data.test), data.num_classes) == (10, 6, 2)
    assert [data.train[i].label for i in range(10)] == [0] * 5 + [1] * 5
    assert data.train[0].image == (folder / "train" / "a_red" / "0.jpg").read_bytes()


def test_the_hash_tells_sets_apart(data, folder, tmp_path):
    copy = tmp_path / "copy"
    for file in folder.rglob("*.*"):
        target = copy / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    assert open_folder(copy).data_hash == data.data_hash  # wherever it lies
    with open(copy / "val" / "b_green" / "1.JPEG", "ab") as file:
        file.write(b"0")
    assert open_folder(copy).data_hash != data.data_hash


def shown(*some):
    """Which images batches hold, as class and a tenth of the brightness."""
    pixels = np.concatenate([batch.images for batch in some])
    labels = np.concatenate([batch.labels for batch in some])
    brightness = pixels.astype(float).mean((1, 2)).max(-1)
    return [(int(c), round(b / 10)) for c, b in zip(labels, brightness, strict=True)]


def test_a_pass_shows_every_image_once_and_the_next_in_another_order(data):
    batches = take(streams.training_batches(data.train, 5, SIZE, seed=3), 4)
    assert all(b.images.shape == (5, SIZE, SIZE, 3) and b.images.dtype == np.uint8 for b in batches)

    first, second = shown(*batches[:2]), shown(*batches[2:])
    assert sorted(first) == sorted(second) == [(c, 10 + 3 * n) for c in (0, 1) for n in range(5)]
    assert first != second
    assert all(batch.labels.dtype == np.int32 for batch in batches)
    for batch in batches:  # the label is the colour's channel
        np.testing.assert_array_equal(batch.images.mean((1, 2)).argmax(-1), batch.labels)


def test_what_is_left_of_a_pass_is_dropped(data):
    batches = take(streams.training_batches(data.train, 4, SIZE, seed=0), 3)
    assert [len(batch.labels) for batch in batches] == [4, 4, 4]
    assert len(set(shown(*batches[:2]))) == 8  # two of ten are missing, the third is another pass


def test_a_batch_of_more_than_there_are_is_refused(data):
    with pytest.raises(ValueError, match=r"batch=11 of 10 examples: use 1 to 10"):
        streams.training_batches(data.train, 11, SIZE, seed=0)


@pytest.mark.parametrize("start", [1, 3, 7])
def test_batches_are_taken_up_anywhere(data, start):
    whole = take(streams.training_batches(data.train, 3, SIZE, seed=5), start + 3)
    assert same(take(streams.training_batches(data.train, 3, SIZE, 5, start), 3), whole[start:])


def test_seeds_differ_in_order_and_crops(data):
    pictures = [Example("gradient", jpeg(gradient()), 0)] * 4
    first, second = (take(streams.training_batches(pictures, 4, SIZE, seed), 2) for seed in (0, 1))
    assert not same(first, second)
    assert not np.array_equal(first[0].images, first[1].images)  # nor are two passes alike
    assert len({image.tobytes() for image in first[0].images}) == 4


def gradient(height=60, width=80):
    """Red grows to the right, green downwards; blue is 200."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    image[..., 2] = 200
    return image


def test_crops_have_the_area_and_aspect_they_should(data):
    """Read from the gradients what part of the image each crop shows."""
    pictures = [Example("gradient", jpeg(gradient()), 0)] * 50
    images = np.concatenate(
        [batch.images for batch in take(streams.training_batches(pictures, 50, 32, 1), 4)]
    ).astype(float)
    mirrored = images[:, :, 0, 0] > images[:, :, -1, 0]
    mirrored = mirrored.mean(1) > 0.5
    assert 0.35 < mirrored.mean() < 0.65
    images[mirrored] = images[mirrored][:, :, ::-1]
    wide = (images[..., -1, 0] - images[..., 0, 0]).mean(1) / 255 * 80 * 32 / 31
    high = (images[:, -1, :, 1] - images[:, 0, :, 1]).mean(1) / 255 * 60 * 32 / 31
    area, aspect = wide * high / (60 * 80), wide / high
    assert 0.05 < area.min() < 0.2 and 0.8 < area.max() < 1.05
    assert 0.65 < aspect.min() < 0.85 and 1.2 < aspect.max() < 1.5
    assert abs(images[..., 2] - 200).max() < 12  # the crop is of the picture, not of padding


@pytest.mark.parametrize("shape", [(6, 200), (200, 6), (1, 1)])
def test_images_of_any_shape_are_cut(shape):
    pictures = [Example("long", jpeg(plain((90, 90, 90), *shape)), 0)] * 4
    (batch,) = take(streams.training_batches(pictures, 4, SIZE, 0), 1)
    np.testing.assert_allclose(batch.images, 90, atol=3)
    (batch,) = streams.test_batches(pictures, 4, SIZE)
    np.testing.assert_allclose(batch.images, 90, atol=3)


def test_test_images_are_the_middle_in_order(data):
    batches = list(streams.test_batches(data.test, 4, SIZE))
    assert [len(batch.labels) for batch in batches] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), [0] * 3 + [1] * 3)
    (batch,) = streams.test_batches([Example("gradient", jpeg(gradient(256, 512)), 0)], 1, 224)
    image = batch.images[0].astype(float)
    # The shorter side is 256 already: the middle 224 of 256 rows, of 512 columns.
    np.testing.assert_allclose(image[[0, -1], :, 1].mean(1), [16, 239], atol=2)
    np.testing.assert_allclose(image[:, [0, -1], 0].mean(0), [72, 183], atol=2)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_other_colours_become_red_green_and_blue(mode):
    buffer = io.BytesIO()
    picture = Image.fromarray(plain((102, 102, 102))).convert(mode)
    picture.save(buffer, "JPEG" if mode in ("L", "CMYK") else "PNG")
    (batch,) = streams.test_batches([Example("grey", buffer.getvalue(), 0)], 1, SIZE)
    assert batch.images.shape == (1, SIZE, SIZE, 3)
    np.testing.assert_allclose(batch.images, 102, atol=4)  # that every palette has


def test_a_spread_is_even(data):
    spread = Spread(data.test, 4)
    assert len(spread) == 4
    assert [spread[i].name for i in range(4)] == [data.test[i].name for i in (0, 1, 3, 4)]
    for count in (0, 7):
        with pytest.raises(ValueError, match="from 1 to 6"):
            Spread(data.test, count)


def test_sources_can_go_to_other_processes(data):
    assert pickle.loads(pickle.dumps(data.train))[9] == data.train[9]


def test_a_damaged_image_is_named(data, folder):
    examples = [data.train[0], Example("broken.jpg", data.train[1].image[:60], 0)]
    for batches in (
        streams.training_batches(examples, 2, SIZE, 0),
        streams.test_batches(examples, 2, SIZE),
    ):
        with pytest.raises(DataNotAvailable, match=r"broken\.jpg cannot be read as an image"):
            next(batches)


def test_a_vanished_image_is_named(folder, tmp_path):
    (tmp_path / "gone").symlink_to(folder)
    data = open_folder(tmp_path / "gone")
    (tmp_path / "gone").unlink()
    with pytest.raises(DataNotAvailable, match=r"0\.jpg cannot be read \(No such file"):
        data.train[0]


@pytest.mark.parametrize(
    ("lay_out", "message"),
    [
        ([], r"there is no folder .*train: images by class are train/CLASS/\*\.jpg"),
        (["train/a/1.jpg"], r"there is no folder .*val: "),
        (["train/a/1.jpg", "val/b/1.jpg"], "val has the class 'b', which .*train has not"),
        (["train/a/1.txt", "val/a/1.jpg"], "train holds no images"),
        (["train/1.jpg", "val/1.jpg"], "train holds no images: put them into folders by class"),
    ],
)
def test_a_wrong_folder_is_refused(lay_out, message, tmp_path):
    for name in lay_out:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(DataNotAvailable, match=message):
        open_folder(tmp_path)


def test_missing_imagenet_is_one_sentence_with_the_remedy(folders):
    with pytest.raises(DataNotAvailable) as refusal:
        open_imagenet()
    message = str(refusal.value)
    assert str(folders / "tfds") in message and "\n" not in message
    assert "tfds build imagenet2012 --file_format=array_record" in message
    assert "--images" in message


def test_imagenet_as_tfrecord_is_not_taken(folders):
    prepared = folders / "tfds" / "imagenet2012" / "5.1.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    (prepared / "imagenet2012-train.tfrecord-00000-of-00001").write_bytes(b"")
    with pytest.raises(DataNotAvailable, match="holds no imagenet2012 in the array_record format"):
        open_imagenet()


def test_imagenet_is_read_where_tfds_keeps_it(folders):
    """A set of four images, prepared by TFDS under ImageNet's name."""
    pixels = [plain(color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))]
    prepare_imagenet(folders / "tfds", {"train": pixels[:3], "validation": pixels[3:]})
    data = open_imagenet()
    assert data.name == "imagenet2012" and data.num_classes == 1000
    assert data.class_names[0] == "n01440764"
    assert (len(data.train), len(data.test)) == (3, 1)
    assert sorted(data.train[i].label for i in range(3)) == [0, 1, 2]
    (batch,) = streams.test_batches(data.test, 4, SIZE)
    np.testing.assert_allclose(batch.images[0].mean((0, 1)), (200, 200, 0), atol=4)


def prepare_imagenet(folder: pathlib.Path, splits):
    import tensorflow_datasets as tfds

    builder = tfds.builder("imagenet2012", data_dir=folder, file_format="array_record")

    def examples(images):
        for number, image in enumerate(images):
            file = io.BytesIO(jpeg(image))
            yield number, {"image": file, "label": number, "file_name": f"{number}.JPEG"}

    builder._split_generators = lambda dl_manager, **_: {
        split: examples(images) for split, images in splits.items()
    }
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
