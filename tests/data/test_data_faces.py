"""Drawn faces: reproducible, labelled as stated, different where an attribute says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from celeba_layout import partition, write_celeba_layout
from PIL import Image

from vitbench.config import Dataset
from vitbench.data.sets.faces import faces

# CelebA's own list, to check names and order against.
CELEBA = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses "
    "Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache "
    "Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick "
    "Wearing_Necklace Wearing_Necktie Young"
)
LOCAL = ("Eyeglasses", "Mouth_Slightly_Open", "Smiling", "Wearing_Hat", "Wearing_Lipstick")
SPREAD = ("Blond_Hair", "Pale_Skin", "Wavy_Hair")
MANY = 1000


@pytest.fixture(scope="module")
def many() -> faces.Faces:
    """Enough faces for rates; tiny, because only their labels are looked at."""
    return faces.draw(MANY, 8, seed=3, workers=1)


def column(name: str) -> int:
    return faces.ATTRIBUTES.index(name)


def assert_same(one: faces.Faces, other: faces.Faces) -> None:
    for field in ("images", "attributes", "truth", "landmarks"):
        assert np.array_equal(getattr(one, field), getattr(other, field)), field


def test_names_and_order_are_celebas() -> None:
    """A config written for CelebA finds the same attribute names, in the same order."""
    assert [name for name in CELEBA.split() if name in faces.ATTRIBUTES] == list(faces.ATTRIBUTES)
    assert set(faces.ATTRIBUTES) == {*LOCAL, *SPREAD}


def test_a_face_depends_on_its_seed_and_number_alone() -> None:
    """Starting elsewhere gives the same faces; another seed gives others."""
    whole = faces.draw(9, 32, seed=5)
    assert whole.images.dtype == np.uint8 and whole.images.shape == (9, 3, 32, 32)
    part = faces.draw(4, 32, seed=5, start=5)
    assert_same(part, faces.Faces(*(getattr(whole, f)[5:] for f in whole.__dataclass_fields__)))
    other = faces.draw(9, 32, seed=6)
    assert all((a != b).mean() > 0.5 for a, b in zip(whole.images, other.images, strict=True))


def test_more_processes_draw_the_same_faces_and_report_them() -> None:
    """Parts come back in any order, and belong where their numbers say."""
    counts: list[int] = []
    drawn = faces.draw(510, 8, seed=1, start=7, workers=2, progress=counts.append)
    assert_same(drawn, faces.draw(510, 8, seed=1, start=7, workers=1))
    assert sorted(counts) == counts and counts[-1] == 510 and len(counts) == 3


def test_a_script_with_torch_loaded_may_draw_in_processes(tmp_path: Path) -> None:
    """Workers start afresh, so neither torch's threads nor the script itself is run in them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from vitbench.data.sets.faces import faces\n"
        "if __name__ == '__main__':\n"
        "    import torch\n"
        "    torch.ones(64, 64) @ torch.ones(64, 64)\n"
        "    print(faces.draw(260, 8, seed=2, workers=2).images.sum())\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(faces.__file__).parents[4])}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=env
    )
    assert int(done.stdout) == faces.draw(260, 8, seed=2, workers=1).images.sum()


def test_a_program_from_standard_input_may_ask_for_processes() -> None:
    """There is no file that workers could import, so the faces are drawn in one process."""
    code = (
        "from vitbench.data.sets.faces import faces; "
        "print(faces.draw(300, 8, workers=2).images.sum())"
    )
    env = os.environ | {"PYTHONPATH": str(Path(faces.__file__).parents[4])}
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, check=True, env=env
    )
    assert int(done.stdout) == faces.draw(300, 8, workers=1).images.sum()


def test_base_rates(many: faces.Faces) -> None:
    """What the labels say has CelebA's rates; four standard errors of MANY labels are allowed."""
    for name in faces.ATTRIBUTES:
        rate = faces.BASE_RATES[name]
        allowed = 4 * (rate * (1 - rate) / MANY) ** 0.5
        assert abs(many.attributes[:, column(name)].mean() - rate) < allowed, name


def test_labels_are_flipped_at_the_stated_rate(many: faces.Faces) -> None:
    """In both directions alike, whatever the attribute, and never in the picture."""
    flipped = many.attributes != many.truth
    assert flipped.mean() == pytest.approx(0.02, abs=4 * (0.02 * 0.98 / flipped.size) ** 0.5)
    for value in (0, 1):
        share = flipped[many.truth == value].mean()
        size = (many.truth == value).sum()
        assert share == pytest.approx(0.02, abs=4 * (0.02 * 0.98 / size) ** 0.5)
    clean = faces.draw(100, 8, seed=3, noise=0.0)
    assert np.array_equal(clean.attributes, clean.truth)
    assert np.array_equal(clean.images, many.images[:100])
    noisy = faces.draw(300, 8, seed=3, noise=0.4)
    wrong = (noisy.attributes != noisy.truth).mean()
    assert wrong == pytest.approx(0.4, abs=4 * (0.24 / noisy.truth.size) ** 0.5)


def test_attributes_are_independent(many: faces.Faces) -> None:
    """No label can be read off another."""
    related = np.corrcoef(many.truth.T) - np.eye(len(faces.ATTRIBUTES))
    assert np.abs(related).max() < 4.5 / MANY**0.5


def test_a_face_is_the_same_at_every_size() -> None:
    """Landmarks scale with the picture; a portrait's middle is the square picture."""
    small, large = faces.draw(6, 32, seed=2), faces.draw(6, 64, seed=2)
    assert np.allclose(small.landmarks * 2, large.landmarks, atol=1e-4)
    assert np.array_equal(small.attributes, large.attributes)
    reduced = large.images.reshape(6, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    for one, other in zip(reduced, small.images, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.93
    portrait, square = faces.draw(2, (178, 218), seed=2), faces.draw(2, 178, seed=2)
    assert portrait.images.shape == (2, 3, 218, 178)
    assert np.allclose(portrait.landmarks - (0, 20), square.landmarks, atol=1e-3)
    middle = portrait.images[:, :, 20:198]
    assert np.abs(middle.astype(int) - square.images.astype(int)).mean() < 12


def test_the_drawings_are_those_of_their_version() -> None:
    """Caches and results go by faces.VERSION: raise it with these numbers, if a change is meant.

    The tolerance is that of another numpy or Pillow.
    """
    assert faces.VERSION == 3
    drawn = faces.draw(6, 32, seed=11)
    means = [131.67, 100.97, 89.42, 117.2, 164.27, 119.8]
    spreads = [40.5, 45.61, 44.23, 76.45, 34.78, 40.49]
    assert drawn.images.mean(axis=(1, 2, 3)) == pytest.approx(means, abs=0.3)
    assert drawn.images.std(axis=(1, 2, 3)) == pytest.approx(spreads, abs=0.3)
    marks = [(12.72, 15.75), (19.66, 16.1), (15.89, 20.37), (12.43, 22.41), (19.32, 22.75)]
    assert np.allclose(drawn.landmarks[0], marks, atol=0.01)


def places(shape: tuple[int, ...]) -> np.ndarray:
    """(x, y) of each pixel's middle: [Y, X, 2]."""
    yy, xx = np.mgrid[0 : shape[-2], 0 : shape[-1]] + 0.5
    return np.stack([xx, yy], axis=-1)


def eye_distance(marks: np.ndarray) -> float:
    return float(np.linalg.norm(marks[1] - marks[0]))


def near(shape: tuple[int, ...], points: np.ndarray, radius: float) -> np.ndarray:
    """Which pixels are within the radius of one of the points."""
    away = np.linalg.norm(places(shape)[:, :, None] - points, axis=-1)
    return np.asarray((away <= radius).any(axis=-1))


def test_landmarks_lie_in_the_eyes_the_nose_and_the_mouth() -> None:
    """Checked in the pixels: eyes are darker than the cheeks, painted mouths redder."""
    plain = {"Eyeglasses": False, "Wearing_Hat": False, "Wearing_Lipstick": True}
    straight = {"Smiling": False, "Mouth_Slightly_Open": False}  # the lips are between the corners
    drawn = faces.draw(60, 96, seed=4, force=plain | straight)
    dark, red, missed = [], [], []
    for image, marks in zip(drawn.images.astype(float), drawn.landmarks, strict=True):
        eyes, mouth = marks[:2], marks[3:]
        d = eye_distance(marks)
        cheeks = (eyes + mouth) / 2
        grey, redness = image.mean(axis=0), image[0] / (image[1] + 10)
        skin = grey[near(image.shape, cheeks, 0.1 * d)].mean()
        for eye in eyes:
            dark.append(grey[near(image.shape, eye[None], 0.12 * d)].mean() < 0.85 * skin)
        up = np.array([(0.0, -0.45 * d)])
        missed.append(grey[near(image.shape, eyes + 2 * up, 0.12 * d)].mean() < 0.85 * skin)
        along = mouth[0] + np.linspace(0.1, 0.9, 9)[:, None] * (mouth[1] - mouth[0])
        lips = redness[near(image.shape, along, 0.12 * d)].mean()
        red.append(lips > redness[near(image.shape, cheeks, 0.1 * d)].mean() * 1.15)
        assert 0.3 < (marks[2] - eyes.mean(axis=0))[1] / d < 1.0  # the nose is between them
    assert np.mean(dark) > 0.9 and np.mean(red) > 0.85  # a thing in front may hide one
    assert np.mean(missed) < 0.35  # the measure tells eyes from foreheads (or hair) above them


def energy(name: str, **also: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where pictures change when an attribute comes and goes: shares [Y, X] and landmarks."""
    with_it = faces.draw(24, 64, seed=8, force=also | {name: True}, noise=0.0)
    without = faces.draw(24, 64, seed=8, force=also | {name: False}, noise=0.0)
    assert np.array_equal(with_it.truth - without.truth, np.tile(np.eye(8)[column(name)], (24, 1)))
    change = (with_it.images.astype(float) - without.images) ** 2
    total = change.sum(axis=(1, 2, 3))
    assert (total > 0).all()
    shares = change.sum(axis=1) / total[:, None, None]
    return list(zip(shares, without.landmarks, strict=True))


def reach(share: np.ndarray) -> float:
    """Root mean square distance of the change from its own middle, in pixels."""
    place = places(share.shape)
    middle = (share[..., None] * place).sum(axis=(0, 1))
    return float((share * ((place - middle) ** 2).sum(axis=-1)).sum() ** 0.5)


def test_glasses_change_the_eyes_alone() -> None:
    """A local attribute: nearly all of the change is at the eyes."""
    for share, marks in energy("Eyeglasses"):
        d = eye_distance(marks)
        assert share[near(share.shape, marks[:2], 0.8 * d)].sum() > 0.9
        assert reach(share) < 0.9 * d


def test_a_smile_changes_the_mouth_and_the_eyes() -> None:
    """Both places change, the mouth most, and nothing else does."""
    mouths, eyes = [], []
    for share, marks in energy("Smiling", Eyeglasses=False):
        d = eye_distance(marks)
        along = marks[3] + np.linspace(-0.2, 1.2, 8)[:, None] * (marks[4] - marks[3])
        at_mouth = near(share.shape, along, 0.5 * d)
        at_eyes = near(share.shape, marks[:2], 0.6 * d)
        mouths.append(share[at_mouth].sum())
        eyes.append(share[at_eyes].sum())
        assert share[at_mouth | at_eyes].sum() > 0.95
    assert np.mean(mouths) > 0.5 and np.mean(eyes) > 0.05


def test_waves_change_the_hair_all_around() -> None:
    """A spread attribute: both sides and the top change, the face does not."""
    reaches, inside = [], []
    for share, marks in energy("Wavy_Hair", Wearing_Hat=False):
        d = eye_distance(marks)
        inside.append(share[near(share.shape, marks, 0.35 * d)].sum())
        beside = places(share.shape)[..., 0] - marks[:3, 0].mean()
        assert min(share[beside < 0].sum(), share[beside > 0].sum()) > 0.1
        reaches.append(reach(share) / d)
    assert np.mean(reaches) > 1.2 and np.mean(inside) < 0.03


@pytest.mark.parametrize("name", faces.ATTRIBUTES)
def test_a_region_is_where_the_attribute_changes_the_picture(name: str) -> None:
    """The stored face and its twin with the attribute turned over differ there and only there."""
    drawn = faces.draw(12, 32, seed=5)
    for index, (image, truth) in enumerate(zip(drawn.images, drawn.truth, strict=True)):
        has = bool(truth[column(name)])
        (twin,) = faces.draw(1, 32, seed=5, start=index, force={name: not has}).images
        mask = faces.region(index, name, 32, seed=5)
        assert mask.dtype == np.bool_ and mask.shape == (32, 32)
        assert np.array_equal(mask, np.any(image != twin, axis=0))
        assert 0 < mask.sum() < 0.6 * mask.size


def test_local_attributes_cover_less_than_spread_ones() -> None:
    """The smallest spread region is larger than the largest local one; extents are as written."""
    area = {
        name: np.array([faces.region(index, name).mean() for index in range(30)])
        for name in faces.ATTRIBUTES
    }
    assert max(area[name].mean() for name in LOCAL) < min(area[name].mean() for name in SPREAD)
    for name, shares in area.items():
        error = 3 * shares.std() / len(shares) ** 0.5 + 0.0005  # as written, to three digits
        assert faces.EXTENTS[name] == pytest.approx(shares.mean(), abs=error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"force": {"Bold": True}}, "Bold cannot be drawn"), ({"noise": 0.5}, "below 0.5")],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    """A misspelt attribute must not pass in silence."""
    with pytest.raises(ValueError, match=message):
        faces.draw(1, 8, **arguments)


def test_another_share_of_wrong_labels_is_another_data_set() -> None:
    """The noise is recorded with the images and is part of the cache's name."""
    dataset = Dataset(name="faces", count=100, image_size=8)
    noiseless = dataset.model_copy(update={"label_noise": 0.0})
    clean, usual = faces.load(noiseless), faces.load(dataset)
    assert (clean.label_noise, usual.label_noise) == (0.0, faces.NOISE)
    assert "none of the labels" in clean.source and "2 % of the labels" in usual.source
    assert np.array_equal(clean.train.images, usual.train.images)
    assert not np.array_equal(clean.train.targets, usual.train.targets)
    assert faces.key(noiseless) != faces.key(dataset)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout")
    write_celeba_layout(folder, 20, seed=9)
    return folder


def test_torchvision_reads_the_layout(layout: Path) -> None:
    """The official class finds pictures, labels and landmarks, once its checksums are set aside."""
    from vitbench.torchvision_import import torchvision

    class Drawn(torchvision().datasets.CelebA):  # type: ignore[misc]
        def _check_integrity(self) -> bool:
            return True  # it knows the sums of the official files only

    drawn = faces.draw(20, (178, 218), seed=9)
    found = Drawn(str(layout), split="all", target_type=["attr", "landmarks"])
    assert [name for name in found.attr_names if name] == list(faces.ATTRIBUTES)
    assert np.array_equal(found.attr.numpy(), drawn.attributes)
    assert np.abs(found.landmarks_align.numpy() + 0.5 - drawn.landmarks.reshape(20, 10)).max() < 0.6
    for number in (0, 19):
        image = np.asarray(found[number][0]).transpose(2, 0, 1).astype(float)
        assert np.abs(image - drawn.images[number]).mean() < 8  # JPEG smooths the grain
    assert [len(Drawn(str(layout), split=part)) for part in ("train", "valid", "test")] == [
        16,
        2,
        2,
    ]


def test_the_tables_are_celebas_text(layout: Path) -> None:
    """Counts, headers and padding as in the official files, for readers other than torchvision."""
    root = layout / "celeba"
    assert sorted(path.name for path in (root / "img_align_celeba").iterdir()) == [
        f"{number:06d}.jpg" for number in range(1, 21)
    ]
    with Image.open(root / "img_align_celeba" / "000007.jpg") as image:
        assert image.size == (178, 218) and image.format == "JPEG"
    lines = {path.name: path.read_text().splitlines() for path in root.glob("*.txt")}
    assert set(lines) == {
        "list_attr_celeba.txt",
        "list_landmarks_align_celeba.txt",
        "list_bbox_celeba.txt",
        "list_eval_partition.txt",
        "identity_CelebA.txt",
    }
    for name, header in (
        ("list_attr_celeba.txt", " ".join(faces.ATTRIBUTES) + " "),
        ("list_bbox_celeba.txt", "image_id x_1 y_1 width height"),
        (
            "list_landmarks_align_celeba.txt",
            "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y "
            "leftmouth_x leftmouth_y rightmouth_x rightmouth_y ",
        ),
    ):
        assert lines[name][:2] == ["20", header] and len(lines[name]) == 22
    values = {field for row in lines["list_attr_celeba.txt"][2:] for field in row.split()[1:]}
    assert values == {"-1", "1"}
    assert lines["list_eval_partition.txt"][0] == "000001.jpg 0"
    assert lines["list_eval_partition.txt"][-1] == "000020.jpg 2"
    assert len({row.split()[1] for row in lines["identity_CelebA.txt"]}) == 20


def test_the_partition_has_celebas_shares() -> None:
    """Of as many pictures as CelebA has, as many are trained on; small ones keep all parts."""
    assert np.bincount(partition(202_599)).tolist() == [162_770, 19_867, 19_962]
    assert partition(3).tolist() == [0, 1, 2]
